import { describe, expect, it } from 'vitest'
import { seedOf, stepExamples } from './sampler'

const steps = (size: number, batch: number, count: number, seed = 0) =>
  Array.from({ length: count }, (_, step) => stepExamples({ size, batch, step, seed }))

describe('stepExamples', () => {
  it('takes each example once an epoch, in another order every epoch', () => {
    const [first, second] = [steps(12, 4, 3).flat(), steps(12, 4, 6).flat().slice(12)]
    const all = Array.from({ length: 12 }, (_, i) => i)
    expect([...first].sort((a, b) => a - b)).toEqual(all)
    expect([...second].sort((a, b) => a - b)).toEqual(all)
    expect(second).not.toEqual(first)
    expect(first).not.toEqual(all)
  })

  it('goes on over the border of epochs and drops nothing', () => {
    const taken = steps(5, 3, 5).flat() // three epochs of five
    for (let i = 0; i < 5; i++) expect(taken.filter((index) => index === i)).toHaveLength(3)
  })

  it('fills a step from a trainset smaller than it', () => {
    expect(steps(1, 3, 1)).toEqual([[0, 0, 0]])
    expect(steps(2, 4, 1).flat().sort()).toEqual([0, 0, 1, 1])
  })

  it('follows from seed and step alone', () => {
    expect(stepExamples({ size: 50, batch: 8, step: 9, seed: 3 })).toEqual(steps(50, 8, 10, 3)[9])
    expect(steps(50, 8, 1, 3)).not.toEqual(steps(50, 8, 1, 4))
  })
})

describe('seedOf', () => {
  it('is a whole number that JSON carries, another for any other part', () => {
    const seeds = new Set<number>()
    for (let example = 0; example < 10; example++)
      for (let rollout = 0; rollout < 10; rollout++)
        for (let call = 0; call < 10; call++) seeds.add(seedOf(0, 1, example, rollout, call))
    expect(seeds.size).toBe(1000)
    for (const seed of seeds) expect(Number.isSafeInteger(seed) && seed >= 0).toBe(true)
    expect(seedOf(1, 23)).not.toBe(seedOf(12, 3))
  })
})
