// Ops of forward passes that come again with the same shape, recorded once and enqueued as one: a pass of inference is some sixty calls into
// the library for a tiny model and three hundred for a small one, and a step of GRPO makes forty passes.

import type { Backend, Capture } from './ops/ops'

/** What decides which ops a pass enqueues and on which memory. */
export interface PassShape {
  /** Rows, segments, samples, ranges of policies, as text. */
  readonly sizes: string
  /** Weights of the policies that take part, in order. */
  readonly weights: readonly object[]
  /** How often it must be met before it is recorded; default 2. */
  readonly recordedAt?: number
}

interface Entry {
  readonly weights: readonly object[]
  /** Null: the shape was met too seldom to record it. */
  readonly capture: Capture | null
  /** Times that its ops were enqueued one by one. */
  readonly met: number
}

/** Shapes that are remembered, the latest used. */
const CAPACITY = 128

export class CaptureCache {
  readonly counters = { recorded: 0, replayed: 0 }
  readonly #entries = new Map<string, Entry>() // least recently used first

  constructor(private readonly backend: Backend) {}

  /** Enqueues what `enqueue` does: by calling it, or by a replay where the shape is known. */
  run({ sizes, weights, recordedAt = 2 }: PassShape, enqueue: () => void): void {
    const { capture: known = null, met = 0 } = this.#take(sizes, weights) ?? {}
    const capture = known ?? (met + 1 >= recordedAt ? this.#record(enqueue) : null)
    if (capture) {
      capture.replay()
      this.counters.replayed++
    } else enqueue()
    this.#entries.set(sizes, { weights, capture, met: met + 1 })
    if (this.#entries.size > CAPACITY) this.#take(this.#entries.keys().next().value!, null)
  }

  /** Forgets all: what they work on is about to move. */
  clear(): void {
    for (const { capture } of this.#entries.values()) capture?.free()
    this.#entries.clear()
  }

  #record(enqueue: () => void): Capture {
    this.counters.recorded++
    return this.backend.capture(enqueue)
  }

  /** Takes an entry out; one of other weights is freed and none. */
  #take(sizes: string, weights: readonly object[] | null): Entry | null {
    const entry = this.#entries.get(sizes)
    if (!entry) return null
    this.#entries.delete(sizes)
    if (weights && entry.weights.every((one, i) => one === weights[i])) return entry
    entry.capture?.free()
    return null
  }
}
