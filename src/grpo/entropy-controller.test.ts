import { describe, expect, it } from 'vitest'
import { entropyCoefficient, nextEntropyState } from './entropy-controller'

const control = { target: 0.3, delta: 0.005, min: 0, max: 0.012 }

describe('the adaptive entropy bonus', () => {
  it('is off in the first step, and while the policy is less sure than wished', () => {
    expect(entropyCoefficient({ coef: 0.01, lastEntropy: null }, control)).toBe(0)
    expect(entropyCoefficient({ coef: 0.01, lastEntropy: 0.31 }, control)).toBe(0)
    expect(entropyCoefficient({ coef: 0.01, lastEntropy: 0 }, control)).toBe(0.01)
  })

  it('grows where entropy is at or below the target, shrinks above it, and stays within its bounds', () => {
    expect(nextEntropyState({ coef: 0.01, lastEntropy: null }, 0.3, control)).toEqual({ coef: 0.012, lastEntropy: 0.3 })
    expect(nextEntropyState({ coef: 0.004, lastEntropy: 0.3 }, 0.5, control)).toEqual({ coef: 0, lastEntropy: 0.5 })
  })
})
