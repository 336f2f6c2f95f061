// One forward pass of inference on the host: which rows it computes, where they write, what they see, which are sampled.
// A pass's numbers lie in one array, taken once at full size and refilled, close together, so that what is uploaded is no more than they are.

import type { PolicyRows } from './batch'
import { Contexts } from './contexts'
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

/** Of the `sample` op, for each sample. */
export const FLOATS = 6
export const INTS = 4

/** Where the parts of a plan of so many rows and samples begin in its one array; the segments come last. */
export type PlanPlaces = ReturnType<typeof planPlaces>

export function planPlaces(rows: number, samples: number) {
  const ints = line(FLOATS * samples)
  const sampleRows = ints + line(INTS * samples)
  const ids = sampleRows + line(samples)
  const positions = ids + line(rows)
  const slots = positions + line(rows)
  return { floats: 0, ints, sampleRows, ids, positions, slots, segments: slots + line(rows) }
}

/** Numbers of a plan at its largest. */
export function planNumbers({ tokens, sequences }: BatchLimits): number {
  return planPlaces(tokens, sequences).segments + 4 * SEGMENTS * sequences
}

/** Each part begins on a cache line. */
function line(numbers: number): number {
  return Math.ceil(numbers / 16) * 16
}

export class BatchPlan {
  readonly #all: Int32Array
  readonly contexts: Contexts
  #used: Int32Array | null = null
  #places: PlanPlaces & { readonly rows: number; readonly samples: number } = { ...planPlaces(0, 0), rows: 0, samples: 0 }
  ids!: Int32Array // [rows]
  positions!: Int32Array // [rows]
  slots!: Int32Array // [rows]
  floats!: Float32Array // [samples, FLOATS] and
  ints!: Int32Array // [samples, INTS], for whoever samples to fill
  sampleRows!: Int32Array // [samples]: the row whose hidden state decides a sample, counted from `liveStart`. Two may read one row.
  segments!: Int32Array // [segmentCount, 4]: rowStart, rowCount, contextStart, contextLength
  /** Each row is the newest token of a sequence of its own. */
  decode = false
  /** Those tokens have not arrived: `ids` name the samples of the plan before that they are. */
  ahead = false
  /** A decoding pass of one policy gets a size that others have too (roundSize): its last row is computed more than once, to the same bits. */
  rounds = false
  rows = 0
  segmentCount = 0
  /** Rows and segments from these on are sampled from; those before them only serve others as keys and values. */
  liveStart = 0
  liveSegment = 0
  highestSlot = 0
  policies: PolicyRows[] = []
  /** Sequences that get a token from this pass: the first of its samples. */
  sampled: readonly Sequence[] = []
  #items: Item[] = []
  #ready: Sequence[] = []
  #scheduled = new Map<number, number>() // slot → row, -1 until laid out
  #rows = 0

  constructor(readonly limits: BatchLimits) {
    this.#all = new Int32Array(planNumbers(limits))
    this.contexts = new Contexts(limits.context)
    this.#place(0, 0)
  }

  /** As many tokens are sampled, those that nobody asked for included. */
  get samples(): number {
    return this.#places.samples
  }

  get places(): PlanPlaces {
    return this.#places
  }

  /** All of the above up to the last segment, as `places` says. */
  get used(): Int32Array {
    const end = this.#places.segments + 4 * this.segmentCount
    if (this.#used?.length !== end) this.#used = this.#all.subarray(0, end)
    return this.#used
  }

  get context(): Int32Array {
    return this.contexts.entries
  }

  clear(): void {
    this.#items = []
    this.#ready = []
    if (this.#scheduled.size > 0) this.#scheduled.clear()
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
    return this.#scheduled.has(slot)
  }

  /** Computes tokens [from, to) of a sequence; their slots are known. */
  compute(sequence: Sequence, from: number, to: number): void {
    this.#items.push({ sequence, from, to })
    this.#rows += to - from
    for (let i = from; i < to; i++) this.#scheduled.set(sequence.slots[i]!, -1)
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
    this.#place(this.#rows, this.#ready.length)
    this.contexts.restart()
    const sampled = new Set(this.#ready.map(({ slots }) => slots.at(-1)!))
    const groups = groupByPolicy(this.#items).map((items) =>
      items.map((item) => ({ ...item, contextStart: this.contexts.add(item.sequence.slots, item.to) })),
    )
    for (const live of [false, true]) {
      if (live) [this.liveStart, this.liveSegment] = [this.rows, this.segmentCount]
      for (const items of groups) {
        const rowStart = this.rows
        for (const item of items) this.#lay(item, (slot) => sampled.has(slot) === live)
        this.#endPolicy(items[0]!.sequence, rowStart)
      }
    }
    for (const [i, { slots }] of this.#ready.entries()) this.sampleRows[i] = this.#scheduled.get(slots.at(-1)!)! - this.liveStart
  }

  /** The same for rows that are all sampled from, one a sequence: hundreds of them, each time the device is waiting. */
  #buildDecode(): void {
    const { sampled } = this
    this.contexts.layOut(sampled)
    this.liveStart = this.liveSegment = 0
    const { policy } = sampled[0]!
    const alike = sampled.every((sequence) => sequence.policy === policy)
    const size = this.rounds && alike ? Math.min(roundSize(sampled.length), this.limits.sequences) : sampled.length
    this.#place(size, size)
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
    this.ids[row] = this.ahead ? sequence.place : sequence.tokens[last]!
    this.positions[row] = last
    this.#write(row, slots[last]!)
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

  /** The rows of an item whose slot is wanted, a segment for each run of them. */
  #lay({ sequence, from, to, contextStart }: Item & { contextStart: number }, wanted: (slot: number) => boolean): void {
    let rowStart = this.rows
    for (let i = from; i < to; i++) {
      const slot = sequence.slots[i]!
      if (!wanted(slot)) continue
      this.ids[this.rows] = sequence.tokens[i]!
      this.positions[this.rows] = i
      this.#write(this.rows, slot)
      this.#scheduled.set(slot, this.rows++)
      if (i + 1 < to && wanted(sequence.slots[i + 1]!)) continue
      this.segments.set([rowStart, this.rows - rowStart, contextStart, i + 1], this.segmentCount++ * 4)
      rowStart = this.rows
    }
  }

  /** Views of the one array, those of the pass before where it was as large. */
  #place(rows: number, samples: number): void {
    if (this.ids !== undefined && rows === this.#places.rows && samples === this.#places.samples) return
    const places = planPlaces(rows, samples)
    this.#places = { ...places, rows, samples }
    this.ids = this.#all.subarray(places.ids, places.ids + rows)
    this.positions = this.#all.subarray(places.positions, places.positions + rows)
    this.slots = this.#all.subarray(places.slots, places.slots + rows)
    this.floats = new Float32Array(this.#all.buffer, 4 * places.floats, FLOATS * samples)
    this.ints = this.#all.subarray(places.ints, places.ints + INTS * samples)
    this.sampleRows = this.#all.subarray(places.sampleRows, places.sampleRows + samples)
    this.segments = this.#all.subarray(places.segments)
  }
}

/** The next size for which a pass is recorded: sequences end one by one, and a pass of each number of rows would be met too seldom to be replayed. */
export function roundSize(rows: number): number {
  if (rows <= 8) return 2 ** Math.ceil(Math.log2(rows))
  const step = rows <= 128 ? 8 : 16
  return step * Math.ceil(rows / step)
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
