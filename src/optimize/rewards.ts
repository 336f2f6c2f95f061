// Several rewards a rollout: the same names in all rollouts of a step, also in those that the metric never saw.

import { OptionError } from '../errors'
import type { RewardWeights } from '../program'
import type { Rollout } from './groups'

/**
 * Gives every rollout the same rewards in the same order, or none at all. One that failed before the metric could judge has the same number in
 * each, so that their weighted sum is its reward.
 * @throws OptionError where rollouts have rewards of different names, or some one number and others several
 */
export function alignRewards(rollouts: readonly Rollout[], weights: RewardWeights | null): Rollout[] {
  const first = rollouts.find((rollout) => rollout.rewards !== null)
  if (!first) return [...rollouts]
  const names = Object.keys(first.rewards!)
  const failed = 1 / (names.reduce((sum, name) => sum + (weights?.[name] ?? 1), 0) || 1)
  return rollouts.map((rollout) => {
    const { rewards, reward, title } = rollout
    if (rewards === null) {
      if (isJudged(rollout))
        throw new OptionError(
          `The metric returned one number on "${title}" and several rewards (${names.join(', ')}) on "${first.title}". Return the same kind always.`,
        )
      return { ...rollout, rewards: Object.fromEntries(names.map((name) => [name, reward * failed])) }
    }
    const own = Object.keys(rewards)
    if (own.length !== names.length || !names.every((name) => own.includes(name)))
      throw new OptionError(
        `The metric returned the rewards ${own.join(', ')} on "${title}" and ${names.join(', ')} on "${first.title}". Return the same names always; null where one has nothing to say.`,
      )
    return { ...rollout, rewards: Object.fromEntries(names.map((name) => [name, rewards[name]!])) }
  })
}

function isJudged({ formatFailure, programError }: Rollout): boolean {
  return !formatFailure && programError === null
}
