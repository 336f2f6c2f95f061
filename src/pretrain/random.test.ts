import { describe, expect, it } from 'vitest'
import { Random } from './random'

describe('Random', () => {
  it('draws the same numbers from the same seeds, and others from other seeds', () => {
    const draws = (...seeds: (number | string)[]): number[] => {
      const random = new Random(...seeds)
      return [random.next(), random.next(), random.next()]
    }
    expect(draws('document', 1, 2)).toEqual(draws('document', 1, 2))
    const others = [
      draws('document', 1, 2),
      draws('document', 2, 1),
      draws('document', 1),
      draws('fact', 1, 2),
      draws('document', 0, 2),
    ]
    expect(new Set(others.flat()).size).toBe(15)
  })

  it('draws evenly for seeds in a row', () => {
    const counts = new Array<number>(16).fill(0)
    for (let seed = 0; seed < 32_000; seed++) counts[new Random('row', seed).below(16)]!++
    for (const count of counts) expect(Math.abs(count - 2000)).toBeLessThan(5 * Math.sqrt(2000))
  })

  it('has a mean of a half and no pairs that follow each other', () => {
    const random = new Random(7)
    const draws = Array.from({ length: 100_000 }, () => random.float())
    expect(draws.reduce((a, b) => a + b) / draws.length).toBeCloseTo(0.5, 2)
    const products = draws.slice(1).map((draw, i) => (draw - 0.5) * (draws[i]! - 0.5))
    expect(Math.abs(products.reduce((a, b) => a + b) / products.length)).toBeLessThan(0.0015)
    expect(Math.min(...draws)).toBeGreaterThanOrEqual(0)
    expect(Math.max(...draws)).toBeLessThan(1)
  })

  it('shuffles without losing anything and leaves the list as it was', () => {
    const list = [1, 2, 3, 4, 5, 6, 7, 8]
    const shuffled = new Random(3).shuffle(list)
    expect(shuffled).not.toEqual(list)
    expect([...shuffled].sort()).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
    expect(list).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
  })

  it('picks keys as often as their shares say', () => {
    const random = new Random(11)
    const counts = { a: 0, b: 0, c: 0 }
    for (let i = 0; i < 20_000; i++) counts[random.pickShare({ a: 0.5, b: 0.3, c: 0.2 })]++
    expect(counts.a / 20_000).toBeCloseTo(0.5, 1)
    expect(counts.b / 20_000).toBeCloseTo(0.3, 1)
    expect(counts.c / 20_000).toBeCloseTo(0.2, 1)
  })
})
