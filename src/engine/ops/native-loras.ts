// The adapters of a linear as a native library takes them: one packed argument, 13 numbers for each (arbor_ops.h).

import { BackendError } from '../../errors'
import { at, native, need, needEqual, width } from './native-arguments'
import type { Adapter, LoraGradSlice, LoraSlice, Tensor } from './ops'

const PARTS = 4 // most members a fused weight may have
const LORA_NUMBERS = 13

type AdapterLists = readonly { weight: Tensor; adapters: readonly Adapter[] }[]

interface PackedAdapters {
  readonly weights: Float64Array
  readonly loras: Float64Array
  readonly count: number
}

/** One linear's at a time, always in the same array: the library reads it at the call. */
export class PackedLoras {
  private numbers = new Float64Array(8 * LORA_NUMBERS)
  private packed: (PackedAdapters & { readonly of: AdapterLists }) | null = null

  /** Null when there are none. */
  pack(op: string, slices: readonly Slice[], weight: Tensor, tokens: number): Float64Array | null {
    if (slices.length === 0) return null
    if (slices.length * LORA_NUMBERS > this.numbers.length) this.numbers = new Float64Array(2 * slices.length * LORA_NUMBERS)
    for (let i = 0; i < slices.length; i++) {
      checkAdapter(op, slices[i]!, weight, tokens)
      this.write(slices[i]!, i * LORA_NUMBERS)
    }
    return this.numbers
  }

  /** Adapters of many weights, one weight's behind the other's; rows and xa are left open. The same list is packed once. */
  packAll(of: AdapterLists): PackedAdapters {
    if (this.packed?.of !== of) this.packed = { of, ...this.packLists(of) }
    return this.packed
  }

  private packLists(of: AdapterLists): PackedAdapters {
    const all = of.flatMap(({ adapters }) => adapters)
    const weights = Float64Array.from(
      of.flatMap(({ weight, adapters }) => [native(weight).address, ...weight.shape, adapters.length]),
    )
    const loras = new Float64Array(Math.max(1, all.length) * LORA_NUMBERS)
    for (const [i, { parts, rank, scale, a, b }] of all.entries()) {
      const own = loras.subarray(i * LORA_NUMBERS)
      own[2] = rank
      own[3] = scale
      for (const [p, rows] of parts.entries()) own[4 + p] = rows
      own[8] = native(a).address
      own[9] = native(b).address
    }
    return { weights, loras, count: all.length }
  }

  private write({ rowStart, rowCount, parts, rank, scale, a, b, xa, da, db }: Slice, start: number): void {
    const { numbers } = this
    numbers[start] = rowStart
    numbers[start + 1] = rowCount
    numbers[start + 2] = rank
    numbers[start + 3] = scale
    for (let p = 0; p < PARTS; p++) numbers[start + 4 + p] = parts[p] ?? 0
    numbers[start + 8] = native(a).address
    numbers[start + 9] = native(b).address
    numbers[start + 10] = native(xa).address
    numbers[start + 11] = at(da) ?? 0
    numbers[start + 12] = at(db) ?? 0
  }
}

type Slice = LoraSlice & Partial<LoraGradSlice>

function checkAdapter(
  op: string,
  { rowStart, rowCount, parts, rank, a, b, xa, da, db }: Slice,
  weight: Tensor,
  tokens: number,
): void {
  const out = weight.shape[0]!
  const inner = weight.shape[1]!
  if (parts.length > PARTS)
    throw new BackendError(`${op}: an adapter has ${parts.length} parts, at most ${PARTS} are possible.`, { op })
  if (rowStart < 0 || rowStart + rowCount > tokens)
    throw new BackendError(`${op}: an adapter is on rows ${rowStart} to ${rowStart + rowCount} of ${tokens}.`, { op })
  need(op, parts.length * rank * inner, 'a da', a, da)
  need(op, out * rank, 'b db', b, db)
  needEqual(op, 'columns of xa and ranks of the adapter', width(xa), parts.length * rank)
  need(op, rowCount * width(xa), 'xa', xa)
}
