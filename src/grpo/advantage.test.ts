import { describe, expect, it } from 'vitest'
import { combineRewards, decoupledAdvantages, groupAdvantages, softLengthPenalty } from './advantage'

const close = (got: readonly number[], expected: readonly number[]) => {
  expect(got.length).toBe(expected.length)
  for (const [i, value] of got.entries()) expect(value).toBeCloseTo(expected[i], 12)
}

describe('decoupledAdvantages', () => {
  it('gives a row without any reward none, and a function that returned nothing no say', () => {
    const { advantages, zeroStdShare } = decoupledAdvantages(
      [
        [1, null],
        [0, null],
        [null, null],
        [1, 1],
        [0, 0],
        [0, null],
      ],
      [3, 3],
    )
    expect(advantages[2]).toBe(0)
    expect(advantages[0]).toBeGreaterThan(0)
    expect(advantages[3]).toBeGreaterThan(advantages[0]!)
    expect(zeroStdShare).toBe(0)
  })

  it('is 0 everywhere where no group has a spread', () => {
    const flat = decoupledAdvantages(
      [
        [1, 2],
        [1, 2],
        [0, 3],
        [0, 3],
      ],
      [2, 2],
    )
    expect(flat.advantages).toEqual([0, 0, 0, 0])
    expect(flat.zeroStdShare).toBe(1)
  })
})

describe('groupAdvantages', () => {
  it('subtracts the group mean and divides by the n − 1 deviation', () => {
    const { advantages, means, stds } = groupAdvantages([1, 0, 0, 1], [4])
    const std = Math.sqrt(1 / 3)
    close(
      advantages,
      [0.5, -0.5, -0.5, 0.5].map((a) => a / (std + 1e-4)),
    )
    close(means, [0.5])
    close(stds, [std])
  })

  it('keeps groups of different sizes apart', () => {
    const { advantages, zeroStdShare } = groupAdvantages([1, 3, 5, 5, 5, 7], [2, 3, 1], 'none')
    close(advantages, [-1, 1, 0, 0, 0, 0])
    // The flat group of three, and the row that is alone in its group.
    expect(zeroStdShare).toBeCloseTo(4 / 6, 12)
  })

  it("scales by the batch's deviation while the mean stays the group's", () => {
    const { advantages } = groupAdvantages([0, 1, 10, 12], [2, 2], 'batch')
    const mean = 23 / 4
    const std = Math.sqrt([0, 1, 10, 12].reduce((sum, r) => sum + (r - mean) ** 2, 0) / 3)
    close(
      advantages,
      [-0.5, 0.5, -1, 1].map((a) => a / (std + 1e-4)),
    )
  })

  it('leaves dead rows out of mean and deviation', () => {
    const { advantages, stds, zeroStdShare } = groupAdvantages([1, Number.NaN, 0, Number.NaN, 3, Number.NaN], [3, 3])
    const std = Math.SQRT1_2
    close(advantages, [0.5 / (std + 1e-4), 0, -0.5 / (std + 1e-4), 0, 0, 0])
    // One live row has no deviation: it teaches nothing, and isn't counted as a flat group.
    expect(stds[1]).toBeNaN()
    expect(zeroStdShare).toBe(0)
  })

  it('treats a reward of 0 as a reward', () => {
    close(groupAdvantages([0, 0, 3], [3], 'none').advantages, [-1, -1, 2])
  })

  it('gives the advantage 0, exactly, to every row of a flat group', () => {
    for (const scale of ['group', 'batch', 'none'] as const)
      expect(groupAdvantages([0.7, 0.7, 0.7, 1, 2, 3], [3, 3], scale).advantages.slice(0, 3)).toEqual([0, 0, 0])
  })

  it('names both counts when groups and rewards disagree', () => {
    expect(() => groupAdvantages([1, 2, 3], [2])).toThrow('groups of 2 rows in all, but 3 rewards')
  })
})

describe('combineRewards', () => {
  it('weighs the functions that returned something', () => {
    const rewards = combineRewards(
      [
        [1, 2],
        [null, 2],
        [0, Number.NaN],
        [null, null],
      ],
      [3, 0.5],
    )
    expect(rewards).toEqual([4, 1, 0, Number.NaN])
  })

  it('asks for one weight a function', () => {
    expect(() => combineRewards([[1, 2]], [1])).toThrow('2 rewards in a row but 1 reward weights')
  })
})

describe('softLengthPenalty', () => {
  it('shrinks positive rewards beyond the soft length, below 0 beyond the limit', () => {
    const rewards = softLengthPenalty([1, 1, 1, -1, 0, 2], [10, 15, 20, 20, 20, 25], { softLength: 10, maxLength: 20 })
    close(rewards, [1, 0.5, 0, -1, 0, -1])
  })

  it('refuses a soft length at or over the limit', () => {
    expect(() => softLengthPenalty([1], [1], { softLength: 20, maxLength: 20 })).toThrow(
      'must be below max_completion_length (20)',
    )
  })
})
