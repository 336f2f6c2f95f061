import { describe, expect, it } from 'vitest'
import { learningRateAt, type ScheduleType } from './schedule'

describe('learning rate schedules', () => {
  // Rates of transformers' get_scheduler at base 0.5, one more than the run is long: type, warm-up, total.
  const warm = [0, 0.166666667, 0.333333333, 0.5]
  const cosine = [0.5, 0.452254249, 0.327254249, 0.172745751, 0.047745751, 0]
  const cases: [ScheduleType, number, number, number[]][] = [
    ['constant', 3, 8, [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]],
    ['constant_with_warmup', 0, 5, [0.5, 0.5, 0.5, 0.5, 0.5, 0.5]],
    ['constant_with_warmup', 3, 8, [...warm, 0.5, 0.5, 0.5, 0.5, 0.5]],
    ['linear', 0, 5, [0.5, 0.4, 0.3, 0.2, 0.1, 0]],
    ['linear', 3, 8, [...warm, 0.4, 0.3, 0.2, 0.1, 0]],
    ['cosine', 0, 5, cosine],
    ['cosine', 3, 8, [...warm, ...cosine.slice(1)]],
  ]
  it.each(cases)('%s, warm-up %i of %i, as in transformers', (type, warmup, total, expected) => {
    for (const [step, rate] of expected.entries())
      expect(learningRateAt(step, { type, base: 0.5, warmup, total })).toBeCloseTo(rate, 8)
  })

  it('warmup_stable_decay, warm-up 3, stable 2 of 9, as in transformers', () => {
    const expected = [...warm, 0.5, 0.5, 0.375, 0.25, 0.125, 0, 0]
    for (const [step, rate] of expected.entries())
      expect(learningRateAt(step, { type: 'warmup_stable_decay', base: 0.5, warmup: 3, stable: 2, total: 9 })).toBeCloseTo(
        rate,
        8,
      )
  })
})
