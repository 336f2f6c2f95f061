// A tensor of a native backend: an address on the device.

import { BackendError } from '../../errors'
import { DTYPE_BYTES } from './arena'
import type { DType, Tensor } from './ops'

/** arbor_type of arbor_ops.h. */
export const TYPE = { f32: 0, bf16: 1, i32: 2, f32Panels: 3, bf16Panels: 4, bf16Roomy: 5 } as const
const PANEL = 16
const CHUNK = 32 // inputs that a row of a bf16 panel is padded to

export class NativeTensor implements Tensor {
  /** Number of elements. */
  readonly length: number
  /** Elements per row of the first dimension. */
  readonly width: number
  readonly type: number

  constructor(
    readonly dtype: DType,
    readonly shape: readonly number[],
    readonly address: number,
    type: number = TYPE[dtype],
  ) {
    let width = 1
    for (let i = 1; i < shape.length; i++) width *= shape[i]!
    this.width = width
    this.length = shape.length === 0 ? 1 : shape[0]! * width
    this.type = type
  }

  /** A tensor at a byte offset of a block. */
  static view(block: number, offset: number, spec: { shape: readonly number[]; dtype: DType }): NativeTensor {
    return new NativeTensor(spec.dtype, spec.shape, block + offset)
  }

  get bytes(): number {
    return this.length * DTYPE_BYTES[this.dtype]
  }

  private get isPrepared(): boolean {
    return this.type === TYPE.f32Panels || this.type === TYPE.bf16Panels
  }

  private get rowBytes(): number {
    const stored = this.type === TYPE.bf16Panels ? Math.ceil(this.width / CHUNK) * CHUNK : this.width
    return stored * DTYPE_BYTES[this.dtype]
  }

  rows(start: number, count: number): NativeTensor {
    const rows = this.shape[0] ?? 0
    if (start < 0 || count < 0 || start + count > rows)
      throw new BackendError(`Rows ${start} to ${start + count} of a tensor [${this.shape}].`, { op: 'rows' })
    if (this.type === TYPE.bf16Roomy)
      throw new BackendError('Rows of a weight with room for adapters are no weight of their own.', { op: 'rows' })
    // Panels keep 16 rows together, so a view starts at one of them.
    if (this.isPrepared && start % PANEL !== 0)
      throw new BackendError(`Rows of a prepared weight start at a multiple of ${PANEL}, not at ${start}.`, { op: 'rows' })
    const shape = this.shape.slice()
    shape[0] = count
    return new NativeTensor(this.dtype, shape, this.address + start * this.rowBytes, this.type)
  }
}
