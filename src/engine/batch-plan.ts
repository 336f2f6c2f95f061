// One forward pass of inference on the host: which rows it computes, where they write, what they see, which are sampled.
// Where its numbers lie is plan-arrays.ts, what they are about is here.

import type { PolicyRows } from './batch'
import { Contexts } from './contexts'
import { PlanArrays, type PlanSize } from './plan-arrays'
import type { Sequence } from './sequence'

export interface BatchLimits extends PlanSize {
  /** Entries of all sequences' contexts together. */
  readonly context: number
}

/** Tokens [from, to) of a sequence. */
interface Item {
  readonly sequence: Sequence
  readonly from: number
  readonly to: number
}

/** A row that others see, and one that a sample is drawn from. */
const [PLAIN, SAMPLED] = [-1, -2] as const

export class BatchPlan extends PlanArrays {
  readonly contexts: Contexts
  /** Each row is the newest token of a sequence of its own. */
  decode = false
  /** Those tokens have not arrived: `ids` name the samples of the plan before that they are. */
  ahead = false
  /** A decoding pass of one policy gets a size that others have too (roundSize): its last row is computed more than once, to the same bits. */
  rounds = false
  rows = 0
  /** Rows and segments from these on are sampled from; those before them only serve others as keys and values. */
  liveStart = 0
  liveSegment = 0
  highestSlot = 0
  policies: PolicyRows[] = []
  /** Sequences that get a token from this pass: the first of its samples. */
  sampled: readonly Sequence[] = []
  #items: Item[] = []
  #ready: Sequence[] = []
  /** By slot, of those that this pass computes: PLAIN or SAMPLED until they are laid out, then 1 + their row. */
  #rowOf: Int32Array = new Int32Array(0)
  /** Those slots, the first `#rows` of them. */
  readonly #computed: Int32Array
  #rows = 0

  constructor(readonly limits: BatchLimits) {
    super(limits)
    this.contexts = new Contexts(limits.context)
    this.#computed = new Int32Array(limits.tokens)
  }

  get context(): Int32Array {
    return this.contexts.entries
  }

  clear(): void {
    if (!this.decode) for (let i = 0; i < this.#rows; i++) this.#rowOf[this.#computed[i]!] = 0
    this.#items = []
    this.#ready = []
    this.#rows = 0
    this.decode = this.ahead = this.rounds = false
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
    return (this.#rowOf[slot] ?? 0) !== 0
  }

  /** Computes tokens [from, to) of a sequence; their slots are known. */
  compute(sequence: Sequence, from: number, to: number): void {
    this.#items.push({ sequence, from, to })
    for (let i = from; i < to; i++) {
      const slot = sequence.slots.at(i)!
      if (slot >= this.#rowOf.length) this.#rowOf = grown(this.#rowOf, slot + 1)
      this.#rowOf[slot] = PLAIN
      this.#computed[this.#rows++] = slot
    }
  }

  /** Samples the sequence's next token from the row of its last token, which this pass computes. */
  sample(sequence: Sequence): void {
    this.#ready.push(sequence)
  }

  /** In a pass of decoding: computes the sequence's last token, whose slot is known, and samples the one after it. */
  decodes(sequence: Sequence): void {
    this.#ready.push(sequence)
    this.#rows++
  }

  /** Lays the rows out, those that are sampled from last, either way one policy's rows together; returns itself. */
  build(): this {
    this.rows = this.segmentCount = this.highestSlot = 0
    this.policies = []
    this.sampled = this.#ready
    if (this.decode) this.#buildDecode()
    else this.#buildPrefill()
    return this
  }

  #buildPrefill(): void {
    this.place(this.#rows, this.#ready.length)
    this.contexts.restart()
    for (const { slots } of this.#ready) this.#rowOf[slots.last] = SAMPLED
    const groups = groupByPolicy(this.#items).map((items) =>
      items.map((item) => ({ ...item, contextStart: this.contexts.add(item.sequence.slots, item.to) })),
    )
    for (const kind of [PLAIN, SAMPLED]) {
      if (kind === SAMPLED) [this.liveStart, this.liveSegment] = [this.rows, this.segmentCount]
      for (const items of groups) {
        const rowStart = this.rows
        for (const item of items) this.#lay(item, kind)
        this.#endPolicy(items[0]!.sequence, rowStart)
      }
    }
    for (const [i, { slots }] of this.#ready.entries()) this.sampleRows[i] = this.#rowOf[slots.last]! - 1 - this.liveStart
  }

  /** The same for rows that are all sampled from, one a sequence: hundreds of them, each time the device is waiting. */
  #buildDecode(): void {
    const { sampled } = this
    this.contexts.layOut(sampled)
    this.liveStart = this.liveSegment = 0
    const { policy } = sampled[0]!
    const alike = sampled.every((sequence) => sequence.policy === policy)
    const size = this.rounds && alike ? Math.min(roundSize(sampled.length), this.limits.sequences) : sampled.length
    this.place(size, size)
    if (alike) {
      for (let i = 0; i < sampled.length; i++) this.#layLast(sampled[i]!, i)
      while (this.rows < size) this.#layLast(sampled.at(-1)!, this.rows)
      this.#endPolicy(sampled[0]!, 0)
      return
    }
    for (const group of groupByPolicy(sampled.map((sequence, i) => ({ sequence, i })))) {
      const rowStart = this.rows
      for (const { sequence, i } of group) this.#layLast(sequence, i)
      this.#endPolicy(group[0]!.sequence, rowStart)
    }
  }

  #endPolicy({ policy }: Sequence, rowStart: number): void {
    if (policy !== null && this.rows > rowStart) this.policies.push({ policy, rowStart, rowCount: this.rows - rowStart })
  }

  /** A row and a segment for a sequence's last token, and sample number `sample`. */
  #layLast(sequence: Sequence, sample: number): void {
    const { slots, context } = sequence
    const last = slots.length - 1
    const row = this.rows++
    const segment = 4 * this.segmentCount++
    this.ids[row] = this.ahead ? sequence.place : sequence.token(last)
    this.positions[row] = last
    this.#write(row, slots.last)
    this.sampleRows[sample] = row
    this.segments[segment] = row
    this.segments[segment + 1] = 1
    this.segments[segment + 2] = context.start
    this.segments[segment + 3] = last + 1
  }

  #write(row: number, slot: number): void {
    this.slots[row] = slot
    if (slot > this.highestSlot) this.highestSlot = slot
  }

  /** The rows of an item that are of a kind, a segment for each run of them. */
  #lay({ sequence, from, to, contextStart }: Item & { contextStart: number }, kind: number): void {
    const { slots, tokens } = sequence
    const rowOf = this.#rowOf
    let rowStart = this.rows
    for (let i = from; i < to; i++) {
      const slot = slots.at(i)!
      if (rowOf[slot] !== kind) continue
      this.ids[this.rows] = tokens[i]!
      this.positions[this.rows] = i
      this.#write(this.rows, slot)
      rowOf[slot] = ++this.rows
      if (i + 1 < to && rowOf[slots.at(i + 1)!] === kind) continue
      this.segments.set([rowStart, this.rows - rowStart, contextStart, i + 1], this.segmentCount++ * 4)
      rowStart = this.rows
    }
  }
}

/** The next size for which a pass is recorded: sequences end one by one, and a pass of each number of rows would be met too seldom to be replayed. */
export function roundSize(rows: number): number {
  if (rows <= 8) return 2 ** Math.ceil(Math.log2(rows))
  const step = rows <= 128 ? 8 : 16
  return step * Math.ceil(rows / step)
}

/** The same numbers in room for as many. */
function grown(numbers: Int32Array, count: number): Int32Array {
  const more = new Int32Array(Math.max(count, 2 * numbers.length))
  more.set(numbers)
  return more
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
