import { describe, expect, it } from 'vitest'
import { type ArborGRPOOptions, checkGrpoOptions } from './grpo-options'

const metric = () => 1
const check = (options: object) => checkGrpoOptions({ metric, ...options } as ArborGRPOOptions)

describe('checkGrpoOptions', () => {
  it("fills in the tutorial's defaults", () => {
    expect(check({})).toMatchObject({
      numDspyExamplesPerGrpoStep: 4,
      numRolloutsPerGrpoStep: 4,
      numTrainSteps: 100,
      numStepsForVal: 5,
      excludeDemos: false,
      checkpoint: 'single-best',
      formatFailureScore: -1,
      failureScore: 0,
      variablyInvokedPredictorGroupingMode: 'truncate',
      numThreads: 16,
      seed: 0,
    })
  })

  it('has a whole step in flight unless told otherwise, of a real Arbor no more than 64 rollouts', () => {
    const large = { numDspyExamplesPerGrpoStep: 64, numRolloutsPerGrpoStep: 8 }
    expect(check(large).numThreads).toBe(512)
    expect(check({ ...large, numRolloutsPerGrpoStep: 16 }).numThreads).toBe(512)
    expect(check({ ...large, target: 'arbor' }).numThreads).toBe(64)
    expect(check({ numThreads: 200 }).numThreads).toBe(200)
  })

  it('names an unknown option with the nearest known one', () => {
    expect(() => check({ numTrainStep: 3 })).toThrow('no option "numTrainStep". Did you mean "numTrainSteps"?')
    expect(() => check({ num_train_steps: 3 })).toThrow('Did you mean "numTrainSteps"?')
    expect(() => check({ zzz: 3 })).toThrow(/no option "zzz"\.$/)
  })

  it('needs a metric', () => {
    expect(() => checkGrpoOptions({} as ArborGRPOOptions)).toThrow(/needs a metric: a function/)
    expect(() => check({ metric: 'exact' })).toThrow(/needs a metric/)
  })

  it('wants a format failure below a failure, or unparsable text would pay', () => {
    expect(() => check({ formatFailureScore: 0 })).toThrow(/formatFailureScore \(0\) must be below failureScore \(0\)/)
    expect(() => check({ formatFailureScore: 1, failureScore: 0.5 })).toThrow(/\(1\) must be below failureScore \(0\.5\)/)
    expect(() => check({ formatFailureScore: Number.NaN })).toThrow(/NaN/)
    expect(check({ formatFailureScore: -0.5, failureScore: -0.25 })).toMatchObject({
      formatFailureScore: -0.5,
      failureScore: -0.25,
    })
  })

  it('goes back to the best policy only where it is kept and the server can', () => {
    expect(check({ restoreBest: true })).toMatchObject({ restoreBest: true })
    expect(() => check({ restoreBest: true, checkpoint: 'none' })).toThrow(/checkpoint 'none' saves none/)
    expect(() => check({ restoreBest: true, target: 'arbor' })).toThrow(/a real Arbor keeps its last policy/)
    expect(() => check({ restoreBest: true, compat: 'dspy' })).toThrow(/leave compat 'dspy' out/)
    expect(check({ restoreBest: false, checkpoint: 'none' })).toMatchObject({ restoreBest: false })
  })

  it.each([
    ['numRolloutsPerGrpoStep', 1, /is 1; .* at least 2 .* nothing to be compared with/],
    ['numTrainSteps', 0, /numTrainSteps is 0; a whole number of at least 1/],
    ['numStepsForVal', 2.5, /numStepsForVal is 2\.5/],
    ['numDspyExamplesPerGrpoStep', '4', /is 4; a whole number/],
    ['seed', -1, /seed is -1; .* at least 0/],
    ['numThreads', Number.NaN, /numThreads is NaN/],
    ['variablyInvokedPredictorGroupingMode', 'pad', /is "pad"; one of truncate, fill, ragged/],
  ])('refuses %s: %s', (key, value, message) => {
    expect(() => check({ [key]: value })).toThrow(message)
  })
})
