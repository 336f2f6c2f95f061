// Hand-made cases for what vectors don't show; the vectors themselves are replayed in test/golden. Gradients by finite differences:
// loss.gradient.test.ts.
import { describe, expect, it } from 'vitest'
import { keptMask, microBatchBounds, needsRow, policyLoss } from './loss'
import { randomInput } from './loss.case'
import { DEFAULT_LOSS_CONFIG, type LossConfig, type LossRow } from './types'

const config = (changes: Partial<LossConfig>): LossConfig => ({ ...DEFAULT_LOSS_CONFIG, ...changes })

/** On-policy rows: with ρ = 1 a token's loss is −A, so sums can be done by hand. */
const onPolicy = (lengths: readonly number[], advantages: readonly number[]) => {
  const rows = lengths.map((length, i): LossRow => ({ length, advantage: advantages[i] }))
  const tokens = lengths.reduce((sum, length) => sum + length, 0)
  return { rows, logprobs: new Float32Array(tokens).fill(-1), entropies: Float32Array.from({ length: tokens }, (_, t) => t) }
}

describe('aggregation', () => {
  const input = onPolicy([1, 3, 2, 4], [1, -1, 2, -3])
  const lossOf = (changes: Partial<LossConfig>) => policyLoss(input, config(changes)).loss

  it('grpo: every row the same', () => expect(lossOf({ lossType: 'grpo' })).toBeCloseTo((-1 + 1 - 2 + 3) / 4, 12))
  it('bnpo: every token the same', () => expect(lossOf({ lossType: 'bnpo' })).toBeCloseTo((-1 + 3 - 4 + 12) / 10, 12))
  it('dr_grpo: over rows times the token budget', () => {
    expect(lossOf({ lossType: 'dr_grpo', maxCompletionLength: 8 })).toBeCloseTo((-1 + 3 - 4 + 12) / (4 * 8), 12)
  })
  it('bnpo in two micro-batches: a mean of two means', () => {
    expect(lossOf({ lossType: 'bnpo', gradientAccumulationSteps: 2 })).toBeCloseTo(((-1 + 3) / 4 + (-4 + 12) / 6) / 2, 12)
  })
  it('dapo: the same however the batch is cut', () => {
    for (const gradientAccumulationSteps of [1, 2, 3, 4, 9])
      expect(lossOf({ lossType: 'dapo', gradientAccumulationSteps })).toBeCloseTo((-1 + 3 - 4 + 12) / 10, 12)
  })
  it('dapo over several updates: the batch token count is scaled to one update', () => {
    const { microBatches } = policyLoss(input, config({ lossType: 'dapo', gradientAccumulationSteps: 2, stepsPerGeneration: 4 }))
    expect(microBatches.map((part) => part.loss * 10 * (2 / 4))).toEqual([-1, 3, -4, 12].map((sum) => expect.closeTo(sum, 12)))
  })
  it('grpo with fewer rows than accumulation steps divides by the micro-batches there are', () => {
    expect(lossOf({ lossType: 'grpo', gradientAccumulationSteps: 9 })).toBeCloseTo(lossOf({ lossType: 'grpo' }), 12)
  })
  it('cuts rows into near-equal parts and drops none', () => expect(microBatchBounds(7, 3)).toEqual([0, 2, 4, 7]))
})

describe('masks', () => {
  it('leaves out tool tokens and, if asked, truncated rows', () => {
    const row: LossRow = { length: 3, advantage: 1, mask: [1, 0, 1], truncated: true }
    expect(Array.from(keptMask(row, config({})))).toEqual([1, 0, 1])
    expect(Array.from(keptMask(row, config({ maskTruncatedCompletions: true })))).toEqual([0, 0, 0])
  })

  it('gives a batch in which nothing is kept the loss 0', () => {
    const input = onPolicy([2, 3], [1, -1])
    const rows = input.rows.map((row) => ({ ...row, truncated: true }))
    for (const lossType of ['grpo', 'bnpo', 'dr_grpo', 'dapo', 'cispo'] as const) {
      const all = config({ lossType, maskTruncatedCompletions: true, entropyCoef: 0.1, topEntropyQuantile: 0.5 })
      const result = policyLoss({ ...input, rows }, all)
      expect(result.loss).toBeCloseTo(0, 15)
      expect(Array.from(result.dLogprobs).every((g) => g === 0)).toBe(true)
    }
  })
})

describe('entropy', () => {
  it('bonus and policy loss act on the same top-entropy tokens', () => {
    const input = onPolicy([2, 3], [1, -1])
    // Entropies are 0 1 2 3 4; the best 40 % of five: at least the 0.6 quantile, 2.4.
    const { loss, dLogprobs, dEntropies } = policyLoss(
      input,
      config({ lossType: 'bnpo', topEntropyQuantile: 0.4, entropyCoef: 0.1 }),
    )
    expect(Array.from(dEntropies!)).toEqual([0, 0, 0, -0.05, -0.05])
    expect(Array.from(dLogprobs, (g) => g + 0)).toEqual([0, 0, 0, 0.2, 0.2])
    expect(loss).toBeCloseTo((0 + 2) / 5 - 0.1 * 3.5, 12)
  })

  it('takes the quantile of each micro-batch, and the bonus is a mean over micro-batches', () => {
    const { dEntropies } = policyLoss(
      onPolicy([2, 2], [1, -1]),
      config({ topEntropyQuantile: 0.5, entropyCoef: 0.2, gradientAccumulationSteps: 2 }),
    )
    expect(Array.from(dEntropies!)).toEqual([0, -0.1, 0, -0.1].map((g) => expect.closeTo(g, 12)))
  })

  it('keeps the token that is the quantile, whatever rounding does to its position', () => {
    const { dLogprobs } = policyLoss(onPolicy([6], [1]), config({ topEntropyQuantile: 0.2 }))
    expect(Array.from(dLogprobs, (g) => g !== 0)).toEqual([false, false, false, false, true, true])
  })
})

describe('off-policy mask', () => {
  const row = { length: 2, advantage: -1, oldLogprobs: [-1, -1] }
  const kept = (row: LossRow) => {
    const result = policyLoss({ rows: [row], logprobs: [-1, -1], entropies: [0, 0] }, config({ offPolicyMaskThreshold: 0.5 }))
    return result.loss !== 0
  }

  it("judges by the sampler's logprobs where they were recorded, not by the old policy's", () => {
    expect(kept(row)).toBe(true)
    expect(kept({ ...row, samplerLogprobs: [-0.1, -0.1] })).toBe(false)
    expect(kept({ ...row, oldLogprobs: [-0.1, -0.1] })).toBe(false)
    expect(kept({ ...row, oldLogprobs: [-0.1, -0.1], samplerLogprobs: [-1, -1] })).toBe(true)
  })
  it('never drops a row of positive advantage, nor one for an unreported logprob', () => {
    expect(kept({ ...row, advantage: 1, samplerLogprobs: [-0.1, -0.1] })).toBe(true)
    expect(kept({ ...row, samplerLogprobs: [null, Number.NaN] })).toBe(true)
    expect(kept({ ...row, samplerLogprobs: [-0.1, null] })).toBe(true)
  })
})

describe('sampler', () => {
  it('reports the gap between the sampler and the pass itself when no old logprobs are given', () => {
    const rows = [{ length: 2, advantage: 1, samplerLogprobs: [-1.5, null] }]
    const { sampler } = policyLoss({ rows, logprobs: [-1, -1], entropies: [0, 0] }, config({}))
    expect(sampler).toEqual({ gapMean: 0.5, gapMax: 0.5, ratioMin: 1, ratioMean: 1, ratioMax: 1 })
  })
  it('is null when nothing was recorded', () => expect(policyLoss(onPolicy([1], [1]), config({})).sampler).toBeNull())
})

describe('rows left out of the pass', () => {
  it.each(['grpo', 'bnpo', 'dr_grpo', 'dapo', 'cispo'] as const)('%s: same loss, gradient and clip shares', (lossType) => {
    for (const importanceSamplingLevel of ['token', 'sequence'] as const) {
      const all = config({ lossType, importanceSamplingLevel, gradientAccumulationSteps: 3, maskTruncatedCompletions: true })
      const full = randomInput(7, { zeroAdvantages: true })
      expect(full.rows.filter((row) => !needsRow(row, all)).length).toBeGreaterThan(2)
      const less = withoutUnneeded(full, all)
      const expected = policyLoss(full, all)
      const got = policyLoss(less.input, all)
      expect(got.loss).toBe(expected.loss)
      expect(got.keptTokens).toBe(expected.keptTokens)
      expect({ ...got.metrics, entropy: 0 }).toEqual({ ...expected.metrics, entropy: 0 })
      expect(Array.from(got.dLogprobs)).toEqual(less.pick(expected.dLogprobs))
      expect(less.others(expected.dLogprobs).every((g) => g === 0)).toBe(true)
    }
  })

  it('are refused when the loss needs them', () => {
    const rows = [{ length: 1, advantage: 0, refLogprobs: [-1], leftOut: true }]
    const input = { rows, logprobs: [], entropies: [] }
    for (const changes of [{ beta: 0.1 }, { entropyCoef: 0.1 }, { topEntropyQuantile: 0.5 }])
      expect(() => policyLoss(input, config(changes))).toThrow('row 0 is left out of the pass, but this loss needs it')
    expect(policyLoss(input, config({})).loss).toBeCloseTo(0, 15)
  })
})

describe('errors', () => {
  const input = onPolicy([2, 1], [1, -1])
  it('names the row and the array', () => {
    expect(() => policyLoss(input, config({ beta: 0.1 }))).toThrow('row 0 has no refLogprobs')
    const rows = [input.rows[0], { length: 1, advantage: 1, oldLogprobs: [-1, -2] }]
    expect(() => policyLoss({ ...input, rows }, config({}))).toThrow('row 1: oldLogprobs has 2 entries for 1 completion tokens')
    const nan = [input.rows[0], { length: 1, advantage: Number.NaN }]
    expect(() => policyLoss({ ...input, rows: nan }, config({}))).toThrow("row 1: advantage NaN isn't a finite number")
    expect(() => policyLoss({ ...input, logprobs: [1] }, config({}))).toThrow(
      'logprobs has 1 values, but the rows of the pass have 3',
    )
  })
})

function withoutUnneeded(full: ReturnType<typeof randomInput>, config: LossConfig) {
  const rows = full.rows.map((row) => ({ ...row, leftOut: !needsRow(row, config) }))
  const inPass = rows.flatMap((row) => Array.from({ length: row.length }, () => !row.leftOut))
  const pick = (values: ArrayLike<number>) => Array.from(values).filter((_, n) => inPass[n])
  const others = (values: ArrayLike<number>) => Array.from(values).filter((_, n) => !inPass[n])
  return { input: { rows, logprobs: pick(full.logprobs), entropies: pick(full.entropies) }, pick, others }
}
