// Tensors of the TensorFlow.js backend: typed arrays in host memory, copied in and out of tfjs around every op.

import type * as tfjs from '@tensorflow/tfjs'
import { BackendError } from '../../errors'
import type { DType, Tensor } from './ops'

export type Tf = typeof tfjs

/** A view of host memory. */
export class HostTensor implements Tensor {
  constructor(
    readonly dtype: DType,
    readonly shape: readonly number[],
    readonly data: Float32Array | Int32Array,
  ) {}

  /** A tensor at a byte offset of a block. */
  static view(block: ArrayBuffer, offset: number, spec: { shape: readonly number[]; dtype: DType }): HostTensor {
    const { shape, dtype } = spec
    const length = shape.reduce((product, n) => product * n, 1)
    if (dtype === 'bf16') throw new BackendError('TensorFlow.js computes in f32 only; bf16 was asked for.', { op: 'tensor' })
    return new HostTensor(dtype, shape, new (dtype === 'i32' ? Int32Array : Float32Array)(block, offset, length))
  }

  rows(start: number, count: number): HostTensor {
    const [rows, ...inner] = this.shape
    if (start < 0 || count < 0 || start + count > rows!)
      throw new BackendError(`Rows ${start} to ${start + count} of a tensor [${this.shape}].`, { op: 'rows' })
    const width = inner.reduce((product, n) => product * n, 1)
    return new HostTensor(this.dtype, [count, ...inner], this.data.subarray(start * width, (start + count) * width))
  }
}

/** The values of one of our tensors. */
export function values(tensor: Tensor): Float32Array | Int32Array {
  return (tensor as HostTensor).data
}

/** The tfjs tensor of one of ours. */
export function load(tf: Tf, tensor: Tensor): tfjs.Tensor {
  return tf.tensor(values(tensor), [...tensor.shape], tensor.dtype === 'i32' ? 'int32' : 'float32')
}

/** Overwrites `to`. */
export function store(to: Tensor, from: tfjs.Tensor): void {
  values(to).set(from.dataSync() as Float32Array)
}

/** Adds to `to`. */
export function accumulate(to: Tensor, from: tfjs.Tensor): void {
  const target = values(to)
  const added = from.dataSync()
  for (let i = 0; i < target.length; i++) target[i]! += added[i]!
}
