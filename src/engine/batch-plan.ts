// One forward pass of inference on the host: which rows it computes, where they write, what they see, which are sampled.
// All numbers lie in one array, taken once at full size and refilled; the runner uploads the part in use.

import type { PolicyRows } from './batch'
import type { Sequence } from './sequence'

export interface BatchLimits {
  /** Rows of one forward pass. */
  readonly tokens: number
  /** Sequences in one forward pass. */
  readonly sequences: number
  /** Entries of all sequences' contexts together. */
  readonly context: number
}

/** Most segments a sequence can take part in making: its rows in two runs around one that another's sample reads. */
export const SEGMENTS = 3

/** Tokens [from, to) of a sequence. */
interface Item {
  readonly sequence: Sequence
  readonly from: number
  readonly to: number
}

/** Where the parts of a plan begin in its one array, and how long it is. */
export function planOffsets({ tokens, sequences, context }: BatchLimits) {
  const segments = 3 * tokens
  const start = { ids: 0, positions: tokens, slots: 2 * tokens, segments, context: segments + 4 * SEGMENTS * sequences }
  return { ...start, end: start.context + context }
}

export class BatchPlan {
  readonly #all: Int32Array
  readonly ids: Int32Array // [rows]
  readonly positions: Int32Array // [rows]
  readonly slots: Int32Array // [rows]
  readonly segments: Int32Array // [segmentCount, 4]: rowStart, rowCount, contextStart, contextLength
  readonly context: Int32Array // [contextCount]
  /** Each row is the newest token of a sequence of its own. */
  decode = false
  /** Those tokens have not arrived: `ids` name the samples of the plan before that they are. */
  ahead = false
  rows = 0
  segmentCount = 0
  contextCount = 0
  /** Rows and segments from these on are sampled from; those before them only serve others as keys and values. */
  liveStart = 0
  liveSegment = 0
  policies: PolicyRows[] = []
  /** Sequences that get a token from this pass, and the row whose hidden state decides it. Two may read one row. */
  samples: { readonly sequence: Sequence; readonly row: number }[] = []
  #items: Item[] = []
  #ready: Sequence[] = []
  #scheduled = new Map<number, number>() // slot → row, -1 until laid out
  #rows = 0
  #previous: ReadonlyMap<Sequence, number> | null = null

  constructor(readonly limits: BatchLimits) {
    const at = planOffsets(limits)
    this.#all = new Int32Array(at.end)
    this.ids = this.#all.subarray(at.ids, at.positions)
    this.positions = this.#all.subarray(at.positions, at.slots)
    this.slots = this.#all.subarray(at.slots, at.segments)
    this.segments = this.#all.subarray(at.segments, at.context)
    this.context = this.#all.subarray(at.context, at.end)
  }

  /** All of the above up to the last entry of the context in use, as `planOffsets` lays it out. */
  get used(): Int32Array {
    return this.#all.subarray(0, this.#all.length - this.context.length + this.contextCount)
  }

  clear(): void {
    this.#items = []
    this.#ready = []
    this.#scheduled.clear()
    this.#rows = 0
    this.decode = this.ahead = false
    this.#previous = null
  }

  /** Each sequence goes on from its sample in the plan before, which the device still works on. */
  follow(samples: ReadonlyMap<Sequence, number>): void {
    this.decode = this.ahead = true
    this.#previous = samples
  }

  get empty(): boolean {
    return this.#rows === 0
  }

  /** Rows that may still be added. */
  get room(): number {
    return this.#ready.length >= this.limits.sequences ? 0 : this.limits.tokens - this.#rows
  }

  /** Whether this pass computes the token in `slot`. */
  computes(slot: number): boolean {
    return this.#scheduled.has(slot)
  }

  /** Computes tokens [from, to) of a sequence; their slots are known. */
  compute(sequence: Sequence, from: number, to: number): void {
    this.#items.push({ sequence, from, to })
    this.#rows += to - from
    if (this.decode) return // nobody asks what it computes
    for (let i = from; i < to; i++) this.#scheduled.set(sequence.slots[i]!, -1)
  }

  /** Samples the sequence's next token from the row of its last token, which this pass computes. */
  sample(sequence: Sequence): void {
    this.#ready.push(sequence)
  }

  /** Lays the rows out, those that are sampled from last, either way one policy's rows together; returns itself. */
  build(): this {
    this.rows = this.segmentCount = this.contextCount = 0
    this.policies = []
    if (this.decode) return this.#buildDecode()
    const sampled = new Set(this.#ready.map(({ slots }) => slots.at(-1)!))
    const groups = groupByPolicy(this.#items).map((items) =>
      items.map((item) => ({ ...item, contextStart: this.#layContext(item) })),
    )
    for (const live of [false, true]) {
      if (live) [this.liveStart, this.liveSegment] = [this.rows, this.segmentCount]
      for (const items of groups) {
        const rowStart = this.rows
        for (const item of items) this.#lay(item, (slot) => sampled.has(slot) === live)
        const policy = items[0]!.sequence.policy
        if (policy !== null && this.rows > rowStart) this.policies.push({ policy, rowStart, rowCount: this.rows - rowStart })
      }
    }
    this.samples = this.#ready.map((sequence) => ({ sequence, row: this.#scheduled.get(sequence.slots.at(-1)!)! }))
    return this
  }

  /** The same for rows that are all sampled from, one a sequence: hundreds of them, each time the device is waiting. */
  #buildDecode(): this {
    this.liveStart = this.liveSegment = 0
    const rowOf = new Map<Sequence, number>()
    for (const items of groupByPolicy(this.#items)) {
      const rowStart = this.rows
      for (const item of items) {
        rowOf.set(item.sequence, this.rows)
        this.#layLast(item)
      }
      const { policy } = items[0]!.sequence
      if (policy !== null) this.policies.push({ policy, rowStart, rowCount: this.rows - rowStart })
    }
    this.samples = this.#ready.map((sequence) => ({ sequence, row: rowOf.get(sequence)! }))
    return this
  }

  /** A row and a segment for a sequence's last token. */
  #layLast(item: Item): void {
    const { sequence, to } = item
    const row = this.rows++
    const segment = 4 * this.segmentCount++
    this.ids[row] = this.#previous?.get(sequence) ?? sequence.tokens[to - 1]!
    this.positions[row] = to - 1
    this.slots[row] = sequence.slots[to - 1]!
    this.segments[segment] = row
    this.segments[segment + 1] = 1
    this.segments[segment + 2] = this.#layContext(item)
    this.segments[segment + 3] = to
  }

  #layContext({ sequence: { slots }, to }: Item): number {
    const { context, contextCount: start } = this
    for (let i = 0; i < to; i++) context[start + i] = slots[i]!
    this.contextCount = start + to
    return start
  }

  /** The rows of an item whose slot is wanted, a segment for each run of them. */
  #lay({ sequence, from, to, contextStart }: Item & { contextStart: number }, wanted: (slot: number) => boolean): void {
    let rowStart = this.rows
    for (let i = from; i < to; i++) {
      const slot = sequence.slots[i]!
      if (!wanted(slot)) continue
      this.ids[this.rows] = this.#previous?.get(sequence) ?? sequence.tokens[i]!
      this.positions[this.rows] = i
      this.slots[this.rows] = slot
      this.#scheduled.set(slot, this.rows++)
      if (i + 1 < to && wanted(sequence.slots[i + 1]!)) continue
      this.segments.set([rowStart, this.rows - rowStart, contextStart, i + 1], this.segmentCount++ * 4)
      rowStart = this.rows
    }
  }
}

function groupByPolicy<Item extends { readonly sequence: Sequence }>(items: readonly Item[]): Item[][] {
  const groups = new Map<string | null, Item[]>()
  for (const item of items) {
    const group = groups.get(item.sequence.policy)
    if (group) group.push(item)
    else groups.set(item.sequence.policy, [item])
  }
  return [...groups.values()]
}
