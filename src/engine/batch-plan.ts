// One forward pass of inference on the host: which rows it computes, where they write, what they see, which are sampled.
// Arrays are taken once at full size and refilled; the runner uploads the parts in use.

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

export class BatchPlan {
  readonly ids: Int32Array // [rows]
  readonly positions: Int32Array // [rows]
  readonly slots: Int32Array // [rows]
  readonly segments: Int32Array // [segmentCount, 4]: rowStart, rowCount, contextStart, contextLength
  readonly context: Int32Array // [contextCount]
  rows = 0
  segmentCount = 0
  contextCount = 0
  policies: PolicyRows[] = []
  /** Sequences that get a token from this pass, and the row whose hidden state decides it. Two may read one row. */
  samples: { readonly sequence: Sequence; readonly row: number }[] = []
  #items: { readonly sequence: Sequence; readonly from: number; readonly to: number }[] = []
  #ready: Sequence[] = []
  #scheduled = new Map<number, number>() // slot → row, -1 until laid out
  #rows = 0

  constructor(readonly limits: BatchLimits) {
    this.ids = new Int32Array(limits.tokens)
    this.positions = new Int32Array(limits.tokens)
    this.slots = new Int32Array(limits.tokens)
    this.segments = new Int32Array(limits.sequences * 4)
    this.context = new Int32Array(limits.context)
  }

  clear(): void {
    this.#items = []
    this.#ready = []
    this.#scheduled.clear()
    this.#rows = 0
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
    for (let i = from; i < to; i++) this.#scheduled.set(sequence.slots[i]!, -1)
    this.#rows += to - from
  }

  /** Samples the sequence's next token from the row of its last token, which this pass computes. */
  sample(sequence: Sequence): void {
    this.#ready.push(sequence)
  }

  /** Lays the rows out, one policy's rows together, and returns itself. */
  build(): this {
    this.rows = this.segmentCount = this.contextCount = 0
    this.policies = []
    for (const items of groupByPolicy(this.#items)) {
      const rowStart = this.rows
      for (const item of items) this.#lay(item)
      const policy = items[0]!.sequence.policy
      if (policy !== null) this.policies.push({ policy, rowStart, rowCount: this.rows - rowStart })
    }
    this.samples = this.#ready.map((sequence) => ({ sequence, row: this.#scheduled.get(sequence.slots.at(-1)!)! }))
    return this
  }

  #lay({ sequence, from, to }: { sequence: Sequence; from: number; to: number }): void {
    this.segments.set([this.rows, to - from, this.contextCount, to], this.segmentCount++ * 4)
    for (let i = 0; i < to; i++) this.context[this.contextCount++] = sequence.slots[i]!
    for (let i = from; i < to; i++) {
      this.ids[this.rows] = sequence.tokens[i]!
      this.positions[this.rows] = i
      this.slots[this.rows] = sequence.slots[i]!
      this.#scheduled.set(sequence.slots[i]!, this.rows++)
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
