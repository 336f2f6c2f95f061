// Random rows for the tests of the loss: the same seed gives the same rows.
import type { LossRow } from './types'

export interface RandomInput {
  readonly rows: LossRow[]
  readonly logprobs: Float64Array
  readonly entropies: Float64Array
}

/** Seven rows of 1 to 8 tokens, some tool tokens, some truncated; `zeroAdvantages` sets those of every other row to 0. */
export function randomInput(seed: number, { zeroAdvantages = false } = {}): RandomInput {
  const random = generator(seed)
  const values = (length: number, make: () => number) => Float64Array.from({ length }, make)
  const near = (base: Float64Array, spread: number) => base.map((value) => value + spread * (2 * random() - 1))
  const parts = Array.from({ length: 7 }, (_, i) => {
    const length = 1 + Math.floor(8 * random())
    const logprobs = values(length, () => -3 * random())
    const entropies = values(length, () => 2 * random())
    const row: LossRow = {
      length,
      advantage: zeroAdvantages && i % 2 === 0 ? 0 : 4 * random() - 2,
      truncated: random() < 0.2,
      mask: values(length, () => Number(random() < 0.8)),
      oldLogprobs: near(logprobs, 0.5),
      refLogprobs: near(logprobs, 0.8),
      samplerLogprobs: near(logprobs, 0.6).map((value) => (random() < 0.1 ? Number.NaN : value)),
    }
    return { row, logprobs, entropies }
  })
  return {
    rows: parts.map((part) => part.row),
    logprobs: Float64Array.from(parts.flatMap((part) => Array.from(part.logprobs))),
    entropies: Float64Array.from(parts.flatMap((part) => Array.from(part.entropies))),
  }
}

/** mulberry32: uniform in [0, 1). */
export function generator(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
