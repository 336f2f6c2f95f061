// GEPA: a reflection model reads what the program did and what the metric said of it, and rewrites the instructions; candidates compete on the
// Pareto frontier of the validation examples. Follows dspy/teleprompt/gepa/gepa.py with the gepa package 0.1.4.

import { nearestName, OptionError } from '../errors'
import { BaseLM, currentSettings, type Module, type Prediction, PythonRandom } from '../program'
import { CandidateSearch, checkTrainset, type Optimized, type PromptCompileOptions } from './candidates'
import { GepaPool } from './gepa-pool'
import { type GepaMetric, GepaProgram } from './gepa-program'
import {
  type CandidateSelection,
  type ComponentSelector,
  GepaSearch,
  type GepaState,
  type InstructionProposer,
} from './gepa-search'

/** Candidates that a budget is meant for. */
const AUTO_CANDIDATES = { light: 6, medium: 12, heavy: 18 } as const
const NO_VALSET =
  'GEPA has no valset and chooses by the trainset, on which it also learns: the instructions will fit these very examples. Pass a valset for a program that should generalise.'
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

/** All that a GEPA run found. Candidates are named by their index; 0 is the program as it was given. */
export interface GepaResult<P extends Module = Module> {
  readonly candidates: readonly P[]
  /** A mutation has one parent, a merge two, the program as given `[null]`. */
  readonly parents: readonly (readonly (number | null)[])[]
  /** Mean score on the validation examples. */
  readonly valAggregateScores: readonly number[]
  /** Scores by validation example. */
  readonly valSubscores: readonly (readonly number[])[]
  readonly perValInstanceBestCandidates: readonly (readonly number[])[]
  readonly highestScoreAchievedPerValTask: readonly number[]
  /** Metric calls made before each candidate was scored. */
  readonly discoveryEvalCounts: readonly number[]
  /** With `trackBestOutputs`: what the leading candidates answered, by validation example. */
  readonly bestOutputsValset: readonly (readonly [candidate: number, output: Prediction][])[] | null
  readonly totalMetricCalls: number
  readonly numFullValEvals: number
  readonly seed: number
  readonly bestIdx: number
  readonly bestCandidate: P
}

export type GepaOptimized<P extends Module> = Optimized<P> & { readonly detailedResults: GepaResult<P> }

/**
 * @example
 * const gepa = new dspy.GEPA({ metric, auto: 'light', reflectionLm: new dspy.LM('openai/gpt-5', { temperature: 1 }) })
 * const better = await gepa.compile(program, { trainset, valset })
 * better.detailedResults.valAggregateScores
 */
export class GEPA {
  readonly options: GEPAOptions
  /** What `compile` takes besides the student. */
  readonly compileParameters = ['trainset', 'valset', 'signal'] as const
  /** The search of the last compile, with every candidate; also after an error. */
  search: CandidateSearch<Module> | null = null

  /** @throws OptionError for an option that is missing, unknown or can't be meant */
  constructor(options: GEPAOptions) {
    checkOptions(options)
    this.options = options
  }

  /**
   * Rewrites the program's instructions: learns from the trainset, chooses by the valset (without one by the trainset again). The student
   * stays as it was. An interrupt ends with the best program so far.
   * @throws OptionError for an empty trainset, a teacher, or a program without predictors; LMError when the reflection model can't be reached
   */
  async compile<P extends Module>(student: P, options: Omit<PromptCompileOptions<P>, 'teacher'>): Promise<GepaOptimized<P>> {
    const { trainset, valset } = this.#checkCompile(student, options)
    const s = this.options
    const seed = s.seed ?? 0
    const search = new CandidateSearch<P>({ title: 'GEPA', ...(options.signal ? { signal: options.signal } : {}) })
    this.search = search as unknown as CandidateSearch<Module>
    const pool = new GepaPool<P>(s.trackBestOutputs)
    const program = new GepaProgram(student, {
      metric: s.metric,
      failureScore: s.failureScore ?? 0,
      numThreads: s.numThreads,
      addFormatFailureAsFeedback: s.addFormatFailureAsFeedback ?? false,
      warnOnScoreMismatch: s.warnOnScoreMismatch ?? true,
      random: new PythonRandom(seed),
    })
    const loop = new GepaSearch(program, pool, search, {
      trainset,
      valset: valset ?? trainset,
      maxMetricCalls: this.budget(student.predictors().length, trainset.length, valset?.length),
      minibatch: s.reflectionMinibatchSize ?? 3,
      perfectScore: (s.skipPerfectScore ?? true) ? (s.perfectScore ?? 1) : null,
      selection: s.candidateSelectionStrategy ?? 'pareto',
      components: s.componentSelector ?? 'round_robin',
      merge:
        (s.useMerge ?? true) ? { maxInvocations: s.maxMergeInvocations ?? 5, overlapFloor: s.mergeValOverlapFloor ?? 5 } : null,
      acceptEqual: s.acceptanceCriterion === 'improvement_or_equal',
      reflectionLm: s.reflectionLm ?? null,
      proposer: s.instructionProposer ?? null,
      stop: s.stopCallbacks ?? [],
      random: new PythonRandom(seed),
    })
    const best = await search.run(() => {
      if (!valset) currentSettings().onWarning?.(NO_VALSET)
      return loop.run()
    })
    return withDetails(best, detailsOf(pool, seed))
  }

  /** The number of metric calls that `auto` or `maxFullEvals` stand for. `valset` undefined: the trainset is used for both. */
  budget(predictors: number, trainset: number, valset?: number): number {
    const { auto, maxFullEvals, maxMetricCalls } = this.options
    if (auto !== undefined)
      return autoBudget({ predictors: Math.max(predictors, 1), candidates: AUTO_CANDIDATES[auto], valset: valset ?? trainset })
    return maxFullEvals !== undefined ? maxFullEvals * (trainset + (valset ?? 0)) : maxMetricCalls!
  }

  #checkCompile<P extends Module>(
    student: P,
    options: PromptCompileOptions<P>,
  ): Pick<PromptCompileOptions<P>, 'trainset' | 'valset'> {
    checkTrainset(options.trainset, 'GEPA')
    if (options.teacher) throw new OptionError('GEPA takes no teacher: it learns from the metric. Leave it out.')
    if (student.predictors().length === 0)
      throw new OptionError(
        'The program has no predictor: there is no instruction to rewrite. Make its predictors attributes of the module.',
      )
    const valset = options.valset && options.valset.length > 0 ? options.valset : undefined
    return { trainset: options.trainset, ...(valset ? { valset } : {}) }
  }
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

function checkOptions(options: GEPAOptions): void {
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

function detailsOf<P extends Module>(pool: GepaPool<P>, seed: number): GepaResult<P> {
  const { entries, bestIndex } = pool
  return {
    candidates: entries.map(({ program }) => program),
    parents: entries.map(({ parents }) => (parents.length > 0 ? parents : [null])),
    valAggregateScores: pool.averages,
    valSubscores: entries.map(({ scores }) => scores),
    perValInstanceBestCandidates: pool.fronts.map((front) => [...front].sort((a, b) => a - b)),
    highestScoreAchievedPerValTask: pool.bestScores,
    discoveryEvalCounts: entries.map(({ discovery }) => discovery),
    bestOutputsValset: pool.keepOutputs ? pool.bestOutputs : null,
    totalMetricCalls: pool.metricCalls,
    numFullValEvals: pool.fullEvaluations,
    seed,
    bestIdx: bestIndex,
    bestCandidate: entries[bestIndex]!.program,
  }
}

function withDetails<P extends Module>(program: Optimized<P>, details: GepaResult<P>): GepaOptimized<P> {
  Object.defineProperty(program, 'detailedResults', { value: details, enumerable: false, configurable: true, writable: true })
  return program as GepaOptimized<P>
}
