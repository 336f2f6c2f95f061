import { describe, expect, it } from 'vitest'
import { PythonRandom } from './python-random'

describe('PythonRandom', () => {
  it('takes seeds of any size and sign', () => {
    const first = (seed: number | bigint | string) => new PythonRandom(seed).random()
    expect(first(-1)).toBe(0.13436424411240122) // Python: random.Random(-1).random(), the same as for 1
    expect(first('1099511627783')).toBe(0.6137037779936511)
    expect(first(2n ** 200n)).not.toBe(first(2n ** 200n + 1n))
  })

  it('refuses to draw from nothing', () => {
    const random = new PythonRandom(0)
    expect(() => random.choice([])).toThrow(/empty list/)
    expect(() => random.sample([1], 2)).toThrow('sample of 2 items from 1')
    expect(() => random.randint(3, 2)).toThrow(/empty range/)
    expect(() => random.choices([1, 2], { weights: [0, 0] })).toThrow(/sum to 0/)
  })
})
