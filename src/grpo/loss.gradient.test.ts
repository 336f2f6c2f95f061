// The closed-form gradients against finite differences of the loss, over random settings. The weights of cispo and vespo are constant in
// the gradient, so these two are held against their formulas instead.
import { describe, expect, it } from 'vitest'
import { gradientIsKnown, policyLoss } from './loss'
import { generator, randomInput } from './loss.case'
import { DEFAULT_LOSS_CONFIG, type LossConfig } from './types'

const STEP = 1e-6

function randomConfig(seed: number): LossConfig {
  const random = generator(1000 + seed)
  const pick = <T>(...choices: readonly T[]): T => choices[Math.floor(choices.length * random())]
  return {
    lossType: pick('grpo', 'bnpo', 'dr_grpo', 'dapo', 'sapo', 'luspo'),
    epsilon: pick(0.05, 0.2),
    epsilonHigh: pick(null, 0.28),
    delta: pick(null, 1.1, 1.4),
    beta: pick(0, 0.1),
    useBiasCorrectionKl: pick(true, false),
    importanceSamplingLevel: pick('token', 'sequence'),
    sapoTemperature: { positive: pick(0.5, 1), negative: pick(1.05, 2) },
    vespoGamma: DEFAULT_LOSS_CONFIG.vespoGamma,
    maxCompletionLength: 16,
    maskTruncatedCompletions: pick(true, false),
    topEntropyQuantile: pick(1, 0.4),
    entropyCoef: pick(0, 0.05),
    offPolicyMaskThreshold: pick(null, 0.05),
    samplerCorrection: pick('none', 'token_truncate', 'token_mask', 'sequence_truncate', 'sequence_mask'),
    samplerClipMin: pick(null, 0.8),
    samplerClipMax: pick(null, 1.3),
    gradientAccumulationSteps: pick(1, 2, 3),
    stepsPerGeneration: pick(null, 2),
  }
}

describe('gradient', () => {
  it.each(Array.from({ length: 200 }, (_, seed) => seed))('equals finite differences with the settings of seed %i', (seed) => {
    const config = randomConfig(seed)
    const input = randomInput(seed)
    const { dLogprobs, dEntropies } = policyLoss(input, config)
    const slope = (name: 'logprobs' | 'entropies', n: number) => {
      const at = (shift: number) => ({ ...input, [name]: input[name].map((value, m) => (m === n ? value + shift : value)) })
      return (policyLoss(at(STEP), config).loss - policyLoss(at(-STEP), config).loss) / (2 * STEP)
    }
    input.logprobs.forEach((_, n) => {
      expect(Math.abs(slope('logprobs', n) - dLogprobs[n])).toBeLessThan(1e-8)
      expect(Math.abs(slope('entropies', n) - (dEntropies?.[n] ?? 0))).toBeLessThan(1e-8)
    })
  })

  it.each(['grpo', 'bnpo', 'dr_grpo', 'dapo', 'cispo', 'sapo', 'luspo', 'vespo'] as const)(
    'of %s is known before the pass where the pass is on-policy, and only there',
    (lossType) => {
      const config = { ...DEFAULT_LOSS_CONFIG, lossType, gradientAccumulationSteps: 2 }
      const rows = [2, 3, 1].map((length, i) => ({ length, advantage: 1 - i * 0.7 }))
      expect(gradientIsKnown(rows, config)).toBe(true)
      const random = generator(5)
      const any = () => Array.from({ length: 6 }, () => -3 * random())
      const zeros = new Float32Array(6)
      const before = policyLoss({ rows, logprobs: zeros, entropies: zeros }, config).dLogprobs
      expect(policyLoss({ rows, logprobs: any(), entropies: any() }, config).dLogprobs).toEqual(before)
      expect(before.every((value) => value !== 0)).toBe(true)
      expect(gradientIsKnown([...rows, { length: 1, advantage: 1, oldLogprobs: [-1] }], config)).toBe(false)
      for (const wish of [{ beta: 0.1 }, { entropyCoef: 0.1 }, { topEntropyQuantile: 0.5 }, { offPolicyMaskThreshold: 1 }])
        expect(gradientIsKnown(rows, { ...config, ...wish })).toBe(false)
    },
  )

  it('of cispo is −min(ρ, cap)·A a token, also where the cap holds', () => {
    const config: LossConfig = { ...DEFAULT_LOSS_CONFIG, lossType: 'cispo', epsilonHigh: 1.5 }
    const rows = [{ length: 2, advantage: 2, oldLogprobs: [-2, -1] }]
    const { dLogprobs, loss, metrics } = policyLoss({ rows, logprobs: [-1, -1.2], entropies: [0, 0] }, config)
    const expected = [(-1.5 * 2) / 2, (-Math.exp(-0.2) * 2) / 2]
    expect(Array.from(dLogprobs)).toEqual(expected.map((g) => expect.closeTo(g, 12)))
    expect(loss).toBeCloseTo(expected[0] * -1 + expected[1] * -1.2, 12)
    expect(metrics.clipHigh).toBe(0.5)
  })

  it('of vespo is −φ(w)·A a token, w the ratio of the whole completion', () => {
    const config: LossConfig = { ...DEFAULT_LOSS_CONFIG, lossType: 'vespo' }
    const rows = [
      { length: 2, advantage: 2, oldLogprobs: [-2, -1] },
      { length: 1, advantage: -1, oldLogprobs: [-1] },
    ]
    const { dLogprobs, metrics } = policyLoss({ rows, logprobs: [-1.9, -1.2, -1], entropies: [0, 0, 0] }, config)
    const w = Math.exp(0.1 - 0.2)
    const phi = Math.exp(3) * w ** 2 * Math.exp(-3 * w)
    expect(Array.from(dLogprobs)).toEqual([(-phi * 2) / 3, (-phi * 2) / 3, 1 / 3].map((g) => expect.closeTo(g, 12)))
    expect(metrics.rowWeight).toBeCloseTo((phi + 1) / 2, 12)
  })

  it('takes the same values from float32 arrays', () => {
    const input = randomInput(3)
    const rounded = { ...input, logprobs: Float32Array.from(input.logprobs), entropies: Float32Array.from(input.entropies) }
    const exact = policyLoss(input, DEFAULT_LOSS_CONFIG)
    expect(policyLoss(rounded, DEFAULT_LOSS_CONFIG).loss).toBeCloseTo(exact.loss, 5)
  })
})
