import { describe, expect, it } from 'vitest'
import type { TrainSequence } from './engine'
import { planParts } from './part-plan'
import { uniforms } from './random'

const row = (prompt: readonly number[], length: number): TrainSequence => ({ prompt, completion: Array(length).fill(1) })
const rowsOf = (sequences: readonly TrainSequence[], places: readonly number[]) => {
  const prompts = new Map(places.map((place) => [sequences[place]!.prompt.join(), sequences[place]!.prompt.length]))
  const completions = places.reduce((sum, place) => sum + sequences[place]!.completion.length - 1, 0)
  return completions + [...prompts.values()].reduce((sum, length) => sum + length, 0)
}

describe('the parts of a step', () => {
  it('keep sequences of one prompt together and in their order', () => {
    const [a, b] = [
      [1, 2, 3],
      [1, 2, 4],
    ]
    const sequences = [row(a, 5), row(b, 5), row(a, 5), row(b, 5)]
    expect(planParts(sequences, 2)).toEqual([
      [0, 2],
      [1, 3],
    ])
  })

  it('have about equally many tokens: the largest prompt first, each to the engine that has least', () => {
    const sequences = [10, 30, 20, 10, 10].map((length, i) => row([i], length))
    expect(planParts(sequences, 2)).toEqual([
      [1, 3],
      [0, 2, 4],
    ])
  })

  it('divide the rollouts of a prompt where there are fewer prompts than engines', () => {
    const sequences = Array.from({ length: 8 }, () => row([1, 2], 20))
    const parts = planParts(sequences, 3)
    expect(parts.flat().sort()).toEqual([...sequences.keys()])
    expect(parts.map(({ length }) => length)).toEqual([3, 3, 2])
    const five = Array.from({ length: 20 }, (_, i) => row([i % 5, 2], 20)) // five prompts of four on four engines
    expect(planParts(five, 4).map(({ length }) => length)).toEqual([5, 5, 5, 5])
  })

  it('divide no prompt that is longer than what dividing would save', () => {
    const prompt = Array(100).fill(3)
    expect(planParts([row(prompt, 2), row(prompt, 2)], 2)).toEqual([[0, 1], []]) // 101 rows for 102
    expect(planParts([row(prompt, 20), row(prompt, 20)], 2)).toEqual([[0], [1]]) // 119 for 138
  })

  it('leave out what has no completion, and may be empty', () => {
    expect(planParts([row([1], 0), row([2], 3), row([2], 0)], 3)).toEqual([[1], [], []])
    expect(planParts([], 2)).toEqual([[], []])
  })

  it('hold every sequence once, and the largest is at most a third above its fair share when prompts are many', () => {
    const random = uniforms(5, 0)
    const sequences = Array.from({ length: 96 }, (_, i) => row([Math.floor(i / 4), 7, 7, 7], 1 + Math.floor(random() * 60)))
    for (const count of [1, 2, 3, 8]) {
      const parts = planParts(sequences, count)
      expect(parts).toEqual(planParts(sequences, count))
      expect(parts.flat().sort((a, b) => a - b)).toEqual([...sequences.keys()])
      const rows = parts.map((places) => rowsOf(sequences, places))
      const all = rowsOf(sequences, [...sequences.keys()])
      expect(Math.max(...rows)).toBeLessThan((4 / 3) * (all / count))
    }
  })
})
