// GEPA: a reflection model reads what the program did and what the metric said of it, and rewrites the instructions; candidates compete on the
// Pareto frontier of the validation examples. Follows dspy/teleprompt/gepa/gepa.py with the gepa package 0.1.4.

import { OptionError } from '../errors'
import { currentSettings, type Module, PythonRandom } from '../program'
import { CandidateSearch, checkTrainset, type PromptCompileOptions } from './candidates'
import { AUTO_CANDIDATES, autoBudget, checkGepaOptions, type GEPAOptions } from './gepa-options'
import { GepaPool } from './gepa-pool'
import { GepaProgram } from './gepa-program'
import { detailsOf, type GepaOptimized, withDetails } from './gepa-result'
import { GepaSearch, type GepaSearchOptions } from './gepa-search'

const NO_VALSET =
  'GEPA has no valset and chooses by the trainset, on which it also learns: the instructions will fit these very examples. Pass a valset for a program that should generalise.'

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
    checkGepaOptions(options)
    this.options = options
  }

  /**
   * Rewrites the program's instructions: learns from the trainset, chooses by the valset (without one by the trainset again). The student
   * stays as it was. An interrupt ends with the best program so far.
   * @throws OptionError for an empty trainset, a teacher, or a program without predictors; LMError when the reflection model can't be reached
   */
  async compile<P extends Module>(student: P, options: Omit<PromptCompileOptions<P>, 'teacher'>): Promise<GepaOptimized<P>> {
    const { trainset, valset } = this.#checkCompile(student, options)
    const seed = this.options.seed ?? 0
    const search = new CandidateSearch<P>({ title: 'GEPA', ...(options.signal ? { signal: options.signal } : {}) })
    this.search = search as unknown as CandidateSearch<Module>
    const pool = new GepaPool<P>(this.options.trackBestOutputs)
    const maxMetricCalls = this.budget(student.predictors().length, trainset.length, valset?.length)
    const loop = new GepaSearch(this.#program(student, seed), pool, search, {
      ...this.#strategy(),
      trainset,
      valset: valset ?? trainset,
      maxMetricCalls,
      random: new PythonRandom(seed),
    })
    const best = await search.run(() => {
      if (!valset) currentSettings().onWarning?.(NO_VALSET)
      return loop.run()
    })
    return withDetails(best, detailsOf(pool, seed))
  }

  #program<P extends Module>(student: P, seed: number): GepaProgram<P> {
    const { metric, numThreads, failureScore = 0, addFormatFailureAsFeedback = false, warnOnScoreMismatch = true } = this.options
    const random = new PythonRandom(seed)
    const options = { metric, numThreads, failureScore, addFormatFailureAsFeedback, warnOnScoreMismatch, random }
    return new GepaProgram(student, options)
  }

  #strategy(): Omit<GepaSearchOptions, 'trainset' | 'valset' | 'maxMetricCalls' | 'random'> {
    const { skipPerfectScore = true, perfectScore = 1, useMerge = true, ...s } = this.options
    return {
      minibatch: s.reflectionMinibatchSize ?? 3,
      perfectScore: skipPerfectScore ? perfectScore : null,
      selection: s.candidateSelectionStrategy ?? 'pareto',
      components: s.componentSelector ?? 'round_robin',
      merge: useMerge ? { maxInvocations: s.maxMergeInvocations ?? 5, overlapFloor: s.mergeValOverlapFloor ?? 5 } : null,
      acceptEqual: s.acceptanceCriterion === 'improvement_or_equal',
      reflectionLm: s.reflectionLm ?? null,
      proposer: s.instructionProposer ?? null,
      stop: s.stopCallbacks ?? [],
    }
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
