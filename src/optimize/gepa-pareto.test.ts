import { describe, expect, it } from 'vitest'
import { PythonRandom } from '../program'
import { EpochBatches } from './gepa-batches'
import { drawFromFrontier, frontierCandidates, removeDominated } from './gepa-pareto'
import { PythonSet } from './python-set'

const fronts = (...sets: number[][]) => sets.map((set) => new PythonSet(set))

describe('the frontier', () => {
  it('drops a candidate in whose every front another stands, the worst first', () => {
    const left = removeDominated(fronts([0, 1], [1, 2], [2]), [0.1, 0.5, 0.4])
    expect(left.map((front) => [...front])).toEqual([[1], [1, 2], [2]])
    expect(frontierCandidates(fronts([0, 1], [1, 2], [2]), [0.1, 0.5, 0.4])).toEqual([1, 2])
  })

  it('keeps one of two that lead on the same examples', () => {
    expect(frontierCandidates(fronts([0, 1], [0, 1]), [0.5, 0.5])).toEqual([1])
  })

  it('draws a candidate as often as it leads', () => {
    const random = new PythonRandom(0)
    const drawn = Array.from({ length: 4000 }, () => drawFromFrontier(fronts([0], [0], [0], [1]), [0.7, 0.3], random))
    const share = drawn.filter((candidate) => candidate === 0).length / drawn.length
    expect(share).toBeGreaterThan(0.72) // 0.75 with a standard error of 0.007; the seed is fixed
    expect(share).toBeLessThan(0.78)
  })
})

describe('EpochBatches', () => {
  it('goes through all examples every epoch, filled up with the rarest', () => {
    const batches = new EpochBatches(5, 2, new PythonRandom(0))
    const epoch = (from: number) => [0, 1, 2].flatMap((k) => batches.at(from + k))
    const [first, second] = [epoch(0), epoch(3)]
    expect([new Set(first).size, new Set(second).size]).toEqual([5, 5])
    expect(first[5]).toBe(first[4]) // all were seen once: the last of the shuffle is taken again
    expect(second).not.toEqual(first)
  })

  it('repeats examples where there are fewer than a batch', () => {
    expect(new Set(new EpochBatches(2, 3, new PythonRandom(1)).at(0)).size).toBe(2)
  })
})
