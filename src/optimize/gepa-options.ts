// The options of GEPA, DSPy's names in camelCase, checked once at the door; and the budget that some of them stand for.

import { nearestName, OptionError } from '../errors'
import { BaseLM } from '../program'
import type { GepaMetric } from './gepa-program'
import type { CandidateSelection, ComponentSelector, GepaState, InstructionProposer } from './gepa-search'

/** Candidates that a budget is meant for. */
export const AUTO_CANDIDATES = { light: 6, medium: 12, heavy: 18 } as const
const SELECTIONS: readonly CandidateSelection[] = ['pareto', 'current_best', 'epsilon_greedy', 'top_k_pareto']

export interface GEPAOptions {
  /** (example, prediction, trace?, predName?, predTrace?) → a score, or `{ score, feedback }`: the feedback is what GEPA learns from. */
  readonly metric: GepaMetric
  /** The budget; exactly one of `auto`, `maxFullEvals` and `maxMetricCalls` is given. */
  readonly auto?: keyof typeof AUTO_CANDIDATES
  /** Times the training and validation examples. */
  readonly maxFullEvals?: number
  /** Scored runs of the program. What an iteration began is finished, so a run may go a little over. */
  readonly maxMetricCalls?: number
  /** Examples to reflect on at a time. Default 3. */
  readonly reflectionMinibatchSize?: number
  /** Default 'pareto'. */
  readonly candidateSelectionStrategy?: CandidateSelection
  /** Writes the new instructions: a strong model at temperature 1. Needed but with an `instructionProposer`. */
  readonly reflectionLm?: BaseLM
  /** Don't reflect on a minibatch without a fault. Default true. */
  readonly skipPerfectScore?: boolean
  /** Show the reflection model answers that could not be read, with the structure they should have. Default false. */
  readonly addFormatFailureAsFeedback?: boolean
  /** Instead of GEPA's own question to the reflection model. */
  readonly instructionProposer?: InstructionProposer
  /** Which predictors to rewrite: each in its turn (default), all at once, or by a function. */
  readonly componentSelector?: 'round_robin' | 'all' | ComponentSelector
  /** Merge candidates that improved different predictors. Default true. */
  readonly useMerge?: boolean
  /** Merged candidates that may be kept. Default 5. */
  readonly maxMergeInvocations?: number
  /** Validation examples needed for a merge. Default 5. */
  readonly mergeValOverlapFloor?: number
  readonly numThreads?: number
  /** Score of a run that failed. Default 0. */
  readonly failureScore?: number
  /** The highest score the metric gives. Default 1. */
  readonly perfectScore?: number
  /** 'strict_improvement' (default): a child has to do better on its minibatch; 'improvement_or_equal': not worse. */
  readonly acceptanceCriterion?: 'strict_improvement' | 'improvement_or_equal'
  /** Asked before every iteration; true ends the search. */
  readonly stopCallbacks?: readonly ((state: GepaState) => boolean)[]
  /** Keep what the leading candidates answered, by validation example. Default false. */
  readonly trackBestOutputs?: boolean
  /** Warn once when the metric scores a predictor otherwise than the program. Default true. */
  readonly warnOnScoreMismatch?: boolean
  /** Default 0. */
  readonly seed?: number
}

const KNOWN: Record<keyof GEPAOptions, true> = {
  metric: true,
  auto: true,
  maxFullEvals: true,
  maxMetricCalls: true,
  reflectionMinibatchSize: true,
  candidateSelectionStrategy: true,
  reflectionLm: true,
  skipPerfectScore: true,
  addFormatFailureAsFeedback: true,
  instructionProposer: true,
  componentSelector: true,
  useMerge: true,
  maxMergeInvocations: true,
  mergeValOverlapFloor: true,
  numThreads: true,
  failureScore: true,
  perfectScore: true,
  acceptanceCriterion: true,
  stopCallbacks: true,
  trackBestOutputs: true,
  warnOnScoreMismatch: true,
  seed: true,
}

/** @throws OptionError for an option that is missing, unknown or can't be meant */
export function checkGepaOptions(options: GEPAOptions): void {
  for (const key of Object.keys(options))
    if (!(key in KNOWN)) {
      const near = nearestName(key, Object.keys(KNOWN))
      throw new OptionError(`GEPA has no option "${key}".${near ? ` Did you mean "${near}"?` : ''}`)
    }
  if (typeof options.metric !== 'function')
    throw new OptionError(
      `GEPA needs a metric: a function (example, prediction) → a number, or { score, feedback } so that GEPA learns from words; got ${String(options.metric)}.`,
    )
  const budgets = (['auto', 'maxFullEvals', 'maxMetricCalls'] as const).filter((key) => options[key] !== undefined)
  if (budgets.length !== 1)
    throw new OptionError(
      `GEPA needs exactly one budget of auto, maxFullEvals and maxMetricCalls; it got ${budgets.join(' and ') || 'none'}. For a first try: auto: 'light'.`,
    )
  if (!(options.reflectionLm instanceof BaseLM) && !options.instructionProposer)
    throw new OptionError(
      "GEPA needs a reflectionLm, the model that rewrites the instructions: a strong one helps, e.g. new dspy.LM('openai/gpt-5', { temperature: 1 }). An instructionProposer does without.",
    )
  checkValues(options)
}

function checkValues(options: GEPAOptions): void {
  if (options.auto !== undefined && !(options.auto in AUTO_CANDIDATES))
    throw new OptionError(`auto is "${options.auto}"; one of ${Object.keys(AUTO_CANDIDATES).join(', ')} is needed.`)
  for (const key of [
    'maxFullEvals',
    'maxMetricCalls',
    'reflectionMinibatchSize',
    'mergeValOverlapFloor',
    'numThreads',
  ] as const) {
    const value = options[key]
    if (value !== undefined && !(Number.isInteger(value) && value > 0))
      throw new OptionError(`${key} is ${String(value)}; a whole number of at least 1 is needed.`)
  }
  const { candidateSelectionStrategy: selection, componentSelector: selector } = options
  if (selection !== undefined && !SELECTIONS.includes(selection))
    throw new OptionError(`candidateSelectionStrategy is "${selection}"; one of ${SELECTIONS.join(', ')} is needed.`)
  if (typeof selector === 'string' && selector !== 'round_robin' && selector !== 'all')
    throw new OptionError(`componentSelector is "${String(selector)}"; 'round_robin', 'all' or a function is needed.`)
}

/** DSPy's estimate: the first evaluation, five tries a candidate, minibatches of 35, and a full evaluation every five trials. */
export function autoBudget(size: { predictors: number; candidates: number; valset: number }): number {
  const { predictors, candidates, valset } = size
  const trials = Math.trunc(Math.max(2 * (predictors * 2) * Math.log2(candidates), 1.5 * candidates))
  const minibatch = 35
  const every = 5
  const total = valset + candidates * 5 + trials * minibatch
  if (trials === 0) return total
  return total + (Math.floor((trials + 1) / every) + 1 + (trials < every ? 1 : 0)) * valset
}
