// The options of ArborGRPO, the tutorial's names in camelCase, checked once at the door.

import { nearestName, OptionError } from '../errors'
import { type Adapter, checkRewardWeights, type RewardsMetric, type RewardWeights } from '../program'
import type { TrainKwargs } from '../protocol'
import type { DspyGrpoExtras, GrpoCompat } from './dspy-grpo-options'

export const CHECKPOINT_MODES = ['single-best', 'improvements', 'none'] as const
export const TARGETS = ['arbor-nb', 'arbor'] as const
export const GROUPING_MODES = ['truncate', 'fill', 'ragged'] as const

/**
 * Rollouts in flight unless told otherwise. Our own server is asked once for all rollouts of an example, and decodes hundreds of sequences
 * on a GPU in hardly more time than one; in waves of 64 they would take as long as all of them together, each time.
 */
const MOST_AT_ONCE: Readonly<Record<(typeof TARGETS)[number], number>> = { 'arbor-nb': 512, arbor: 64 }

export interface ArborGRPOOptions extends DspyGrpoExtras {
  /** (example, prediction, trace) → number or boolean, or several rewards by name: { correct: 1, brief: 0.3 }. */
  readonly metric: RewardsMetric
  /** What each of several rewards counts; the reward is their weighted sum. Default: 1 each. */
  readonly rewardWeights?: RewardWeights | null
  /** Examples a step: one group each for every predictor. Default 4. */
  readonly numDspyExamplesPerGrpoStep?: number
  /** Rollouts of each example: the size of a group, at least 2. Default 4. */
  readonly numRolloutsPerGrpoStep?: number
  /** Optimizer steps. Default 100. */
  readonly numTrainSteps?: number
  /** Validate (and checkpoint) every so many steps, before the first and after the last. Default 5. */
  readonly numStepsForVal?: number
  /** false (ours): train the prompt as it was sampled, demonstrations included. true (DSPy): leave them out of the trained prompt. */
  readonly excludeDemos?: boolean
  /** 'single-best', 'improvements' or 'none' as in Arbor; a path means: the best and the last policy, copied into that folder. */
  readonly checkpoint?: string
  /** End with the policy that validated best instead of the last one: the job, and the program that compile returns, answer with it. Default false. */
  readonly restoreBest?: boolean
  readonly trainKwargs?: TrainKwargs
  /** Rollouts in flight at once. Default: all of a step, at most 512, and of a real Arbor 64. */
  readonly numThreads?: number
  /** Order of the examples and seed of every rollout. Default 0. */
  readonly seed?: number
  /** Reward of a completion in which no field was found. Default −1. */
  readonly formatFailureScore?: number
  /** Reward when the program itself threw, and the score of a failed validation example. Default 0. */
  readonly failureScore?: number
  /** Validate on the training examples as well. Default false. */
  readonly reportTrainScores?: boolean
  /** What to do when the rollouts of an example called a predictor unequally often: cut to the fewest calls, fill up, or keep what is there. */
  readonly variablyInvokedPredictorGroupingMode?: (typeof GROUPING_MODES)[number]
  /** Formats the trained prompt when demonstrations are left out. Default: the adapter that asked. */
  readonly adapter?: Adapter
  /** Who trains: our server, or a real Arbor (arbor-ai, Python, GPUs), which is sent nothing but its own protocol. Default 'arbor-nb'. */
  readonly target?: (typeof TARGETS)[number]
  /** Do exactly as Python does: 'dspy' as arbor-ai's ArborGRPO, 'dspy.GRPO' as DSPy's own. The student is then trained in place. */
  readonly compat?: GrpoCompat | null
}

export interface GrpoSettings extends Required<Omit<ArborGRPOOptions, 'adapter' | 'compat' | keyof DspyGrpoExtras>> {
  readonly adapter: Adapter | null
}

const KNOWN: Record<keyof ArborGRPOOptions, true> = {
  metric: true,
  rewardWeights: true,
  numDspyExamplesPerGrpoStep: true,
  numRolloutsPerGrpoStep: true,
  numTrainSteps: true,
  numStepsForVal: true,
  excludeDemos: true,
  checkpoint: true,
  restoreBest: true,
  trainKwargs: true,
  numThreads: true,
  seed: true,
  formatFailureScore: true,
  failureScore: true,
  reportTrainScores: true,
  variablyInvokedPredictorGroupingMode: true,
  adapter: true,
  target: true,
  compat: true,
  multitask: true,
  useTrainAsVal: true,
  variablyInvokedPredictorFillStrategy: true,
}

/** @throws OptionError naming the option, its value and what is allowed. */
/** What only DSPy's ways take. */
const COMPAT_ONLY = ['multitask', 'useTrainAsVal', 'variablyInvokedPredictorFillStrategy'] as const

export function checkGrpoOptions(options: ArborGRPOOptions): GrpoSettings {
  for (const key of Object.keys(options))
    if (!(key in KNOWN)) {
      const near = nearestName(key, Object.keys(KNOWN))
      throw new OptionError(`ArborGRPO has no option "${key}".${near ? ` Did you mean "${near}"?` : ''}`)
    }
  const needsCompat = COMPAT_ONLY.find((key) => options[key] !== undefined && !options.compat)
  if (needsCompat) throw new OptionError(`${needsCompat} is taken with compat: 'dspy' only.`)
  if (typeof options.metric !== 'function')
    throw new OptionError(
      'ArborGRPO needs a metric: a function (example, prediction, trace) → number or boolean. It is the reward.',
    )
  const examples = whole(options, 'numDspyExamplesPerGrpoStep', 4, 1)
  const rollouts = whole(options, 'numRolloutsPerGrpoStep', 4, options.compat === 'dspy.GRPO' ? 1 : 2)
  const failureScore = options.failureScore ?? 0
  const formatFailureScore = options.formatFailureScore ?? -1
  if (!(formatFailureScore < failureScore))
    throw new OptionError(
      `formatFailureScore (${formatFailureScore}) must be below failureScore (${failureScore}), or unparsable text would pay.`,
    )
  checkRestore(options)
  const weights = checkRewardWeights(options.rewardWeights)
  const target = oneOf(options.target ?? 'arbor-nb', TARGETS, 'target')
  if (weights && options.trainKwargs?.reward_weights)
    throw new OptionError('rewardWeights and trainKwargs.reward_weights are given; keep rewardWeights, which has names.')
  return {
    metric: options.metric,
    rewardWeights: weights,
    numDspyExamplesPerGrpoStep: examples,
    numRolloutsPerGrpoStep: rollouts,
    numTrainSteps: whole(options, 'numTrainSteps', 100, 1),
    numStepsForVal: whole(options, 'numStepsForVal', 5, 1),
    excludeDemos: options.excludeDemos ?? false,
    checkpoint: options.checkpoint ?? 'single-best',
    restoreBest: options.restoreBest ?? false,
    trainKwargs: options.trainKwargs ?? {},
    numThreads: whole(options, 'numThreads', Math.min(MOST_AT_ONCE[target], examples * rollouts), 1),
    seed: whole(options, 'seed', 0, 0),
    formatFailureScore,
    failureScore,
    reportTrainScores: options.reportTrainScores ?? false,
    variablyInvokedPredictorGroupingMode: oneOf(
      options.variablyInvokedPredictorGroupingMode ?? 'truncate',
      GROUPING_MODES,
      'variablyInvokedPredictorGroupingMode',
    ),
    adapter: options.adapter ?? null,
    target,
  }
}

function checkRestore({ restoreBest, checkpoint, target, compat }: ArborGRPOOptions): void {
  if (!restoreBest) return
  if (checkpoint === 'none') throw new OptionError("restoreBest goes back to a checkpoint, and checkpoint 'none' saves none.")
  if (compat) throw new OptionError(`restoreBest: Python's ways end with the last policy; leave compat '${compat}' out.`)
  if (target === 'arbor') throw new OptionError('restoreBest: a real Arbor keeps its last policy; leave restoreBest out.')
}

function whole(options: ArborGRPOOptions, key: keyof ArborGRPOOptions, fallback: number, least: number): number {
  const value = options[key] ?? fallback
  if (typeof value !== 'number' || !Number.isInteger(value) || value < least) {
    const why = key === 'numRolloutsPerGrpoStep' ? ' A group of one has nothing to be compared with.' : ''
    throw new OptionError(`${key} is ${String(value)}; a whole number of at least ${least} is needed.${why}`)
  }
  return value
}

function oneOf<T extends string>(value: string, allowed: readonly T[], key: string): T {
  if ((allowed as readonly string[]).includes(value)) return value as T
  throw new OptionError(`${key} is "${value}"; one of ${allowed.join(', ')} is needed.`)
}
