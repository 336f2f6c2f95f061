// From rewards to advantages: how much better a completion did than the others of its group.
import type { ScaleRewards } from './types'

/** Keeps a group whose rewards are almost equal from getting huge advantages. */
const STD_FLOOR = 1e-4

export interface GroupAdvantages {
  /** One a row; 0 for a dead row and for a row alone in its group. */
  readonly advantages: number[]
  /** One a group, over its live rows; NaN without any. */
  readonly means: number[]
  /** One a group (n − 1 divisor); NaN with fewer than two live rows in a group of several. */
  readonly stds: number[]
  /** Share of rows whose scale is 0: they teach nothing. */
  readonly zeroStdShare: number
}

/**
 * A row's reward minus its group's mean, divided by a standard deviation + 1e-4: the group's, the whole batch's, or no division.
 * `groupSizes` cuts the rows, in order, into groups (of different sizes if need be). A reward of NaN marks a dead row: left out
 * of mean and deviation, its advantage is 0.
 */
export function groupAdvantages(
  rewards: ArrayLike<number>,
  groupSizes: readonly number[],
  scale: ScaleRewards = 'group',
): GroupAdvantages {
  const groups = cutIntoGroups(Array.from(rewards), groupSizes)
  const means = groups.map(mean)
  const stds = groups.map(standardDeviation)
  const batchStd = standardDeviation(groups.flat())
  const scaleOf = (group: number) => (scale === 'batch' ? batchStd : stds[group])
  const advantages = groups.flatMap((group, g) => {
    const divisor = scale === 'none' ? 1 : scaleOf(g) + STD_FLOOR
    return group.map((reward) => orZero((reward - means[g]) / divisor))
  })
  const flatRows = groups.flatMap((group, g) => (Math.abs(scaleOf(g)) <= 1e-8 ? group : []))
  return { advantages, means, stds, zeroStdShare: flatRows.length / Math.max(1, advantages.length) }
}

/**
 * One reward a row: the weighted sum over its reward functions. `null` or NaN means that a function returned nothing and is
 * left out; a row for which none returned anything is dead, NaN.
 */
export function combineRewards(
  rewardsPerFunction: readonly (readonly (number | null)[])[],
  weights?: readonly number[],
): number[] {
  return rewardsPerFunction.map((row) => {
    if (weights && weights.length !== row.length)
      throw new Error(`${row.length} rewards in a row but ${weights.length} reward weights; give one weight a reward function`)
    const returned = row.flatMap((reward, k) => (isNumber(reward) ? [reward * (weights?.[k] ?? 1)] : []))
    return returned.length === 0 ? Number.NaN : returned.reduce((sum, reward) => sum + reward, 0)
  })
}

/**
 * GDPO (https://arxiv.org/abs/2601.05242): every reward function is normalised within its group first, then the weighted sum over the whole batch; a
 * function with a wide spread doesn't drown one with a narrow one. TRL's `normalize_then_sum`. A group's mean and standard deviation
 * reported here are those of the plain weighted sums.
 */
export function decoupledAdvantages(
  rewardsPerFunction: readonly (readonly (number | null)[])[],
  groupSizes: readonly number[],
  weights?: readonly number[],
): GroupAdvantages {
  const sums = combineRewards(rewardsPerFunction, weights)
  const functions = rewardsPerFunction[0]?.length ?? 0
  const normalised = Array.from({ length: functions }, (_, k) => {
    const column = rewardsPerFunction.map((row) => row[k] ?? Number.NaN)
    return cutIntoGroups(column, groupSizes).flatMap((group) => {
      const [center, spread] = [mean(group), standardDeviation(group)]
      return group.map((reward) => (reward - center) / (spread + STD_FLOOR))
    })
  })
  const scores = sums.map((sum, i) => {
    if (Number.isNaN(sum)) return Number.NaN
    return normalised.reduce((total, column, k) => total + orZero(column[i]) * (weights?.[k] ?? 1), 0)
  })
  const [center, spread] = [mean(scores), standardDeviation(scores)]
  const groups = cutIntoGroups(sums, groupSizes)
  return {
    advantages: scores.map((score) => orZero((score - center) / (spread + STD_FLOOR))),
    means: groups.map(mean),
    stds: groups.map(standardDeviation),
    zeroStdShare: Math.abs(spread) <= 1e-8 ? 1 : 0,
  }
}

/**
 * Arbor's soft length penalty: a positive reward shrinks linearly from `softLength` tokens on and is 0 at `maxLength`.
 * As in Arbor it isn't clamped: beyond `maxLength` the reward is negative.
 */
export function softLengthPenalty(
  rewards: ArrayLike<number>,
  lengths: ArrayLike<number>,
  limits: { readonly softLength: number; readonly maxLength: number },
): number[] {
  const { softLength, maxLength } = limits
  if (!(maxLength > softLength))
    throw new Error(
      `soft_completion_penalty_length (${softLength}) must be below max_completion_length (${maxLength}); lower the first or raise the second`,
    )
  return Array.from(rewards, (reward, i) =>
    reward > 0 && lengths[i] > softLength ? reward * (1 - (lengths[i] - softLength) / (maxLength - softLength)) : reward,
  )
}

/** Mean over the values that aren't NaN; NaN without any. */
export function mean(values: readonly number[]): number {
  const live = values.filter(isNumber)
  // Three times 0.7 divided by 3 isn't 0.7: without this a flat group's advantages would be 1e-16, and its rows trained for nothing.
  if (live.length > 0 && live.every((value) => value === live[0])) return live[0]
  return live.reduce((sum, value) => sum + value, 0) / live.length
}

/** n − 1 divisor, over the values that aren't NaN; NaN with fewer than two of them, but 0 where there is one value at all. */
export function standardDeviation(values: readonly number[]): number {
  if (values.length === 1) return 0
  const live = values.filter(isNumber)
  if (live.length < 2) return Number.NaN
  const center = mean(live)
  return Math.sqrt(live.reduce((sum, value) => sum + (value - center) ** 2, 0) / (live.length - 1))
}

function cutIntoGroups(rewards: readonly number[], sizes: readonly number[]): number[][] {
  const total = sizes.reduce((sum, size) => sum + size, 0)
  if (total !== rewards.length) throw new Error(`groups of ${total} rows in all, but ${rewards.length} rewards`)
  let start = 0
  return sizes.map((size) => rewards.slice(start, (start += size)))
}

function isNumber(value: number | null): value is number {
  return value !== null && !Number.isNaN(value)
}

function orZero(value: number): number {
  return Number.isNaN(value) ? 0 : value
}
