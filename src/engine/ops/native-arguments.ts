// Tensors as arguments of a native library: their address, type and sizes, and checks that they hold what an op will touch.

import { BackendError } from '../../errors'
import type { NativeTensor } from './native-tensor'
import type { Tensor } from './ops'

export const native = (tensor: Tensor) => tensor as NativeTensor
export const at = (tensor: Tensor | undefined) => (tensor === undefined ? null : native(tensor).address)
export const typeOf = (tensor: Tensor) => native(tensor).type
export const lengthOf = (tensor: Tensor) => native(tensor).length
/** Columns of a matrix: elements per row of the first dimension. */
export const width = (tensor: Tensor) => native(tensor).width

type Given = Tensor | undefined

/** Throws when one of the tensors (`names` in their order) that are given holds fewer elements than the op will touch. */
export function need(op: string, count: number, names: string, one: Given, two?: Given, three?: Given, four?: Given): void {
  if (isShort(one, count) || isShort(two, count) || isShort(three, count) || isShort(four, count)) {
    const tensors = [one, two, three, four]
    const first = tensors.findIndex((tensor) => isShort(tensor, count))
    const name = names.split(' ')[first]
    throw new BackendError(`${op}: ${name} is [${tensors[first]!.shape}], but ${count} elements are needed.`, { op })
  }
}

function isShort(tensor: Given, count: number): boolean {
  return tensor !== undefined && lengthOf(tensor) < count
}

export function needEqual(op: string, what: string, one: number, other: number): void {
  if (one !== other) throw new BackendError(`${op}: ${what} differ: ${one} and ${other}.`, { op })
}
