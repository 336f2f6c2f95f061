// Rewards of a step's groups → advantages: one reward a sample, or several (GDPO).

import { OptionError } from '../errors'
import { decoupledAdvantages, type GroupAdvantages, groupAdvantages, softLengthPenalty } from '../grpo'
import type { TrainerConfig } from '../protocol'
import { rewardScale } from './trainer-config'
import type { TrainingRow } from './training-rows'

/** Throws OptionError where the config asks for several rewards a sample and they aren't there, or are more or fewer than their weights. */
export function scoreGroups(groups: readonly (readonly TrainingRow[])[], config: TrainerConfig): GroupAdvantages {
  const rows = groups.flat()
  const sizes = groups.map((group) => group.length)
  if (config.multi_objective_aggregation === 'sum_then_normalize')
    return groupAdvantages(scoredRewards(rows, config), sizes, rewardScale(config))
  return decoupledAdvantages(severalRewards(rows, config.reward_weights), sizes, config.reward_weights ?? undefined)
}

function severalRewards(rows: readonly TrainingRow[], weights: readonly number[] | null): (number | null)[][] {
  const expected = weights?.length ?? rows[0]?.rewards?.length ?? 0
  return rows.map(({ rewards }, i) => {
    if (rewards === null)
      throw new OptionError(
        `Sample ${i} has one reward; multi_objective_aggregation "normalize_then_sum" needs "rewards", one a reward function. Return several from the metric, or use "sum_then_normalize".`,
      )
    if (rewards.length !== expected)
      throw new OptionError(`Sample ${i} has ${rewards.length} rewards where ${expected} are expected: one a reward function.`)
    return [...rewards]
  })
}

function scoredRewards(rows: readonly TrainingRow[], config: TrainerConfig): number[] {
  const rewards = rows.map((row) => row.reward)
  const { soft_completion_penalty_length: softLength, max_completion_length: maxLength } = config
  if (softLength === null || maxLength === null) return rewards
  const lengths = rows.map((row) => row.completion.length)
  return softLengthPenalty(rewards, lengths, { softLength, maxLength })
}
