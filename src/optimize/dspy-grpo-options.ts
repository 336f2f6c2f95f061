// The options of GRPO as DSPy has them: its defaults, and what it refuses.

import { OptionError } from '../errors'
import type { Metric } from '../program'
import type { ArborGRPOOptions, GROUPING_MODES } from './grpo-options'

/** 'dspy': arbor-ai's ArborGRPO. 'dspy.GRPO': the one that comes with DSPy. */
export type GrpoCompat = 'dspy' | 'dspy.GRPO'

/** What only the compatible ways take. */
export interface DspyGrpoExtras {
  readonly multitask?: boolean
  /** Validate on the training examples; needs `reportTrainScores`. */
  readonly useTrainAsVal?: boolean
  /** How `variablyInvokedPredictorGroupingMode: 'fill'` fills up: by a random call of the rollout, or by its last one. */
  readonly variablyInvokedPredictorFillStrategy?: 'randint' | 'max' | null
}

export interface DspyGrpoSettings {
  readonly compat: GrpoCompat
  /** One number: DSPy knows no others. */
  readonly metric: Metric
  readonly adapter: ArborGRPOOptions['adapter']
  readonly trainKwargs: Readonly<Record<string, unknown>>
  readonly numThreads: number
  readonly numTrainSteps: number
  readonly seed: number
  readonly examplesPerStep: number
  readonly rollouts: number
  readonly useTrainAsVal: boolean
  readonly numStepsForVal: number
  readonly reportTrainScores: boolean
  readonly failureScore: number
  readonly formatFailureScore: number
  readonly mode: (typeof GROUPING_MODES)[number]
  readonly fill: 'randint' | 'max' | null
  readonly checkpoint: string
}

/** @throws OptionError for what DSPy refuses */
export function dspyGrpoSettings(options: ArborGRPOOptions & DspyGrpoExtras, compat: GrpoCompat): DspyGrpoSettings {
  const arbor = compat === 'dspy'
  const settings: DspyGrpoSettings = {
    compat,
    metric: options.metric as Metric,
    adapter: options.adapter,
    trainKwargs: { ...options.trainKwargs },
    numThreads: options.numThreads ?? 6,
    numTrainSteps: options.numTrainSteps ?? (arbor ? 500 : 100),
    seed: options.seed ?? 0,
    examplesPerStep: options.numDspyExamplesPerGrpoStep ?? 1,
    rollouts: options.numRolloutsPerGrpoStep ?? (arbor ? 4 : 1),
    useTrainAsVal: options.useTrainAsVal ?? false,
    numStepsForVal: options.numStepsForVal ?? 5,
    reportTrainScores: options.reportTrainScores ?? false,
    failureScore: options.failureScore ?? 0,
    formatFailureScore: options.formatFailureScore ?? -1,
    mode: options.variablyInvokedPredictorGroupingMode ?? 'truncate',
    fill: options.variablyInvokedPredictorFillStrategy ?? null,
    checkpoint: options.checkpoint ?? 'single-best',
  }
  const refused = refusal(settings, options)
  if (refused !== null) throw new OptionError(refused)
  return settings
}

function refusal(s: DspyGrpoSettings, options: ArborGRPOOptions & DspyGrpoExtras): string | null {
  if (s.compat === 'dspy' && s.rollouts < 2)
    return `numRolloutsPerGrpoStep is ${s.rollouts}; at least 2 are needed: a group of one has nothing to be compared with.`
  if (s.failureScore <= s.formatFailureScore)
    return `formatFailureScore (${s.formatFailureScore}) must be below failureScore (${s.failureScore}).`
  if (s.useTrainAsVal && !s.reportTrainScores) return 'useTrainAsVal needs reportTrainScores: true.'
  if (options.excludeDemos !== true)
    return `DSPy's GRPO trains without demonstrations only: pass excludeDemos: true, or leave compat out.`
  if (options.multitask === false) return 'One job for each predictor (multitask: false) is nothing that GRPO can do.'
  if (s.mode === 'fill' && s.fill === null)
    return "variablyInvokedPredictorGroupingMode 'fill' needs a variablyInvokedPredictorFillStrategy: 'randint' or 'max'."
  if (s.compat === 'dspy' && !['single-best', 'improvements', 'none'].includes(s.checkpoint))
    return `checkpoint is "${s.checkpoint}"; one of single-best, improvements, none is needed with compat.`
  return null
}
