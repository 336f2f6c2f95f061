// Memory by cursor: an arena takes large blocks from a backend and carves tensors out of them. `reset` only moves the cursor back.

import { BackendError, OutOfMemoryError } from '../../errors'
import type { Arena, DType, Tensor } from './ops'

/** How a backend takes, views and frees one block of its memory. */
export interface BlockSource<Block> {
  allocate(bytes: number): Block
  /** A tensor at a byte offset of the block. */
  view(block: Block, offset: number, spec: { shape: readonly number[]; dtype: DType }): Tensor
  free(block: Block): void
}

export const DTYPE_BYTES: Readonly<Record<DType, number>> = { f32: 4, i32: 4, bf16: 2 }

/** Every tensor starts on a cache line, the width of the widest vector instructions. */
const ALIGNMENT = 64

/**
 * An arena that takes a further block when the first is full, at least as large as all it has. Positions (`mark`, `used`) count
 * bytes over all blocks in order; a tensor lies within one block.
 */
export class BumpArena<Block> implements Arena {
  private readonly blocks: { readonly block: Block; readonly start: number; readonly bytes: number }[] = []
  private cursor = 0
  private closed = false

  constructor(
    private readonly source: BlockSource<Block>,
    bytes: number,
    /** A further block is no larger than this, unless one tensor needs it: by default as large as all before it. */
    private readonly mostGrowth = Number.POSITIVE_INFINITY,
  ) {
    this.addBlock(align(Math.max(bytes, ALIGNMENT)))
  }

  tensor(shape: readonly number[], dtype: DType = 'f32'): Tensor {
    if (this.closed) throw new BackendError('A tensor was asked of an arena that is closed.', { op: 'arena' })
    let bytes = DTYPE_BYTES[dtype]
    for (let i = 0; i < shape.length; i++) bytes *= shape[i]!
    bytes = align(bytes)
    const home = this.roomFor(bytes) ?? this.grow(bytes)
    const at = Math.max(home.start, this.cursor)
    this.cursor = at + bytes
    return this.source.view(home.block, at - home.start, { shape, dtype })
  }

  reserve(bytes: number): void {
    if (this.cursor > 0 || (this.blocks[0]?.bytes ?? 0) >= bytes) return
    for (const { block } of this.blocks.splice(0)) this.source.free(block)
    try {
      this.addBlock(align(bytes))
    } catch (error) {
      if (!(error instanceof OutOfMemoryError)) throw error
    }
  }

  mark(): number {
    return this.cursor
  }

  reset(mark = 0): void {
    this.cursor = mark
  }

  get used(): number {
    return this.cursor
  }

  get capacity(): number {
    const last = this.blocks.at(-1)
    return last ? last.start + last.bytes : 0
  }

  close(): void {
    this.closed = true
    for (const { block } of this.blocks.splice(0)) this.source.free(block)
  }

  /** The first block in which `bytes` lie behind the cursor. */
  private roomFor(bytes: number) {
    for (let i = 0; i < this.blocks.length; i++) {
      const { start, bytes: size } = this.blocks[i]!
      if (Math.max(start, this.cursor) + bytes <= start + size) return this.blocks[i]!
    }
    return null
  }

  /** By as much as there is, or where that can't be had by what is needed. */
  private grow(bytes: number) {
    try {
      return this.addBlock(Math.max(bytes, Math.min(this.capacity, this.mostGrowth)))
    } catch (error) {
      if (!(error instanceof OutOfMemoryError) || this.capacity <= bytes) throw error
      return this.addBlock(bytes)
    }
  }

  private addBlock(bytes: number) {
    const added = { block: this.source.allocate(bytes), start: this.capacity, bytes }
    this.blocks.push(added)
    return added
  }
}

function align(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT
}
