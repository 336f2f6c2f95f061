// Several rewards for one prediction: a metric that returns a record of named numbers, and the weights that make one number of them.

import { nearestName, OptionError } from '../errors'
import type { Metric } from './evaluate'
import { Prediction } from './example'
import type { Loose } from './infer-types'

/** What a metric of several rewards returns: true and false count 1 and 0; null: it has nothing to say here, which counts 0. */
export type Rewards = Readonly<Record<string, number | boolean | null>>
/** As `Metric`, with several rewards at will. @example (example, prediction) => ({ correct: exact(example, prediction), brief: 0.3 }) */
export type RewardsMetric = (
  ...args: Parameters<Metric>
) => number | boolean | Prediction | Rewards | Promise<number | boolean | Prediction | Rewards>
/** How much each reward counts. @example { correct: 1, brief: 0.5 } */
export type RewardWeights = Readonly<Record<string, number>>

export interface Rewarded {
  /** The metric's number, or the weighted sum of its rewards. */
  readonly reward: number
  /** By name, in the order of the weights where there are some; null where the metric returned one number. */
  readonly rewards: Readonly<Record<string, number | null>> | null
}

/**
 * Reads what a metric returned. Without weights every reward counts 1.
 * @param one reads a single score
 * @throws OptionError for a record with other names than the weights', or with a value that is no number
 */
export function rewardOf(value: unknown, weights: RewardWeights | null, one: (value: unknown) => number | boolean): Rewarded {
  if (!isRecord(value)) return { reward: Number(one(value)), rewards: null }
  if (weights) checkNames(Object.keys(value), weights)
  const names = Object.keys(weights ?? value)
  if (names.length === 0) throw new OptionError('The metric returned {}: a record of rewards needs at least one.')
  const rewards = Object.fromEntries(names.map((name) => [name, numberOf(name, value[name])]))
  const reward = names.reduce((sum, name) => sum + (weights?.[name] ?? 1) * (rewards[name] ?? 0), 0)
  return { reward, rewards }
}

/** @throws OptionError for weights that can't be meant */
export function checkRewardWeights(weights: RewardWeights | null | undefined): RewardWeights | null {
  if (weights === null || weights === undefined) return null
  const names = Object.keys(weights)
  if (names.length === 0)
    throw new OptionError('rewardWeights is empty; name every reward of the metric, e.g. { correct: 1, brief: 0.5 }.')
  for (const name of names)
    if (!Number.isFinite(weights[name]))
      throw new OptionError(`rewardWeights.${name} is ${weights[name]}; a finite number is needed.`)
  return weights
}

function checkNames(given: readonly string[], weights: RewardWeights): void {
  const known = Object.keys(weights)
  const extra = given.find((name) => !known.includes(name))
  const near = extra === undefined ? null : nearestName(extra, known)
  if (extra !== undefined)
    throw new OptionError(
      `The metric returned the reward "${extra}", which rewardWeights doesn't name (${known.join(', ')}).${near ? ` Is "${near}" meant?` : ''}`,
    )
  const missing = known.find((name) => !given.includes(name))
  if (missing !== undefined)
    throw new OptionError(
      `The metric returned no reward "${missing}", only ${given.join(', ')}. Return every one that rewardWeights names; null where it has nothing to say.`,
    )
}

function numberOf(name: string, value: unknown): number | null {
  if (value === null) return null
  if (typeof value === 'boolean') return Number(value)
  if (typeof value === 'number' && Number.isFinite(value)) return value
  throw new OptionError(
    `The metric returned ${JSON.stringify(value) ?? String(value)} as the reward "${name}"; a finite number, a boolean or null is needed.`,
  )
}

/** A plain object; a Prediction with a score is none. */
function isRecord(value: unknown): value is Loose {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Prediction)
}
