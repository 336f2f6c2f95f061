// BootstrapRS: several BootstrapFewShot over shuffled examples, each scored on the validation set; the best one wins.
// DSPy's BootstrapFewShotWithRandomSearch, after its teleprompt/random_search.py.

import { OptionError } from '../errors'
import { Evaluate, type Metric, type Module, PythonRandom, type Settings } from '../program'
import { checkNotAllFailed } from './all-failed'
import { BootstrapFewShot } from './bootstrap-few-shot'
import { CandidateSearch, checkTrainset, type Optimized, type PromptCompileOptions } from './candidates'
import { freshCopy } from './fresh-copy'
import { LabeledFewShot } from './labeled-few-shot'

export interface BootstrapRSOptions {
  readonly metric: Metric
  readonly teacherSettings?: Partial<Settings>
  /** Most bootstrapped demos of a candidate; each seed draws its number between 1 and this. */
  readonly maxBootstrappedDemos?: number
  readonly maxLabeledDemos?: number
  readonly maxRounds?: number
  /** Shuffled candidates; zero-shot, labeled demos and the unshuffled one come before them. */
  readonly numCandidatePrograms?: number
  readonly numThreads?: number
  readonly maxErrors?: number | null
  /** Percent: a candidate this good ends the search. */
  readonly stopAtScore?: number | null
  readonly metricThreshold?: number | null
}

export interface BootstrapRSCompileOptions<P extends Module = Module> extends PromptCompileOptions<P> {
  /** Try these seeds alone: −3 zero-shot, −2 labeled demos, −1 unshuffled, 0, 1, … shuffled. */
  readonly restrict?: readonly number[]
  /** false: labeled demos are the first examples instead of random ones. */
  readonly labeledSample?: boolean
}

const FIRST_SEED = -3

/**
 * The best of many BootstrapFewShot over shuffled examples.
 * @example
 * const optimizer = new dspy.BootstrapRS({ metric, numCandidatePrograms: 6 })
 * const better = await optimizer.compile(student, { trainset, valset })
 */
export class BootstrapRS {
  readonly options: BootstrapRSOptions
  /** The search of the last compile; its candidates are here also when compile throws. */
  search: CandidateSearch<Module> | null = null

  constructor(options: BootstrapRSOptions) {
    if (typeof options?.metric !== 'function')
      throw new OptionError('BootstrapRS needs a metric: new BootstrapRS({ metric: (example, prediction) => … }).')
    this.options = options
  }

  /**
   * The best candidate; the first of equal ones. Without a valset the trainset judges.
   * @throws OptionError without examples; ArborError when too many examples fail, or all of the first program
   */
  async compile<P extends Module>(student: P, options: BootstrapRSCompileOptions<P>): Promise<Optimized<P>> {
    checkTrainset(options.trainset, 'BootstrapRS')
    const seeds = this.seeds(options.restrict)
    const search = new CandidateSearch<P>({ title: 'BootstrapRS', total: seeds.length, signal: options.signal })
    this.search = search
    const { metric, numThreads, maxErrors, stopAtScore } = this.options
    const limits = { ...(numThreads ? { numThreads } : {}), ...(typeof maxErrors === 'number' ? { maxErrors } : {}) }
    const devset = options.valset ?? options.trainset
    return search.run(async () => {
      for (const seed of seeds) {
        const label = labelOf(seed)
        search.note(`${label}: gathering demos`)
        const program = await this.candidate(student, seed, { ...options, signal: search.signal })
        const evaluate = new Evaluate({ devset, metric, ...limits, displayProgress: true, title: label })
        const { score, results } = await evaluate.call(program)
        if (search.candidates.length === 0) checkNotAllFailed(results.map(({ cause = null }) => cause))
        search.add({ label, seed, program, score, subscores: results.map((result) => result.score) })
        if (typeof stopAtScore === 'number' && score >= stopAtScore) break
      }
      return null
    })
  }

  private seeds(restrict: readonly number[] | undefined): number[] {
    const count = this.options.numCandidatePrograms ?? 16
    const all = Array.from({ length: count - FIRST_SEED }, (_, i) => i + FIRST_SEED)
    const seeds = restrict ? all.filter((seed) => restrict.includes(seed)) : all
    if (seeds.length > 0) return seeds
    throw new OptionError(
      `restrict [${restrict?.join(', ')}] names none of the seeds from ${FIRST_SEED} to ${count - 1}, so no program would be tried.`,
    )
  }

  private async candidate<P extends Module>(student: P, seed: number, options: BootstrapRSCompileOptions<P>): Promise<P> {
    const { maxLabeledDemos = 16, maxBootstrappedDemos = 4 } = this.options
    const { labeledSample: sample = true, trainset, teacher, signal } = options
    if (seed === -3) return freshCopy(student)
    if (seed === -2) return new LabeledFewShot({ k: maxLabeledDemos }).compile(student, { trainset, sample })
    const shuffled = [...trainset]
    if (seed >= 0) new PythonRandom(seed).shuffle(shuffled)
    const size =
      seed >= 0 && maxBootstrappedDemos > 0 ? new PythonRandom(seed).randint(1, maxBootstrappedDemos) : maxBootstrappedDemos
    const bootstrap = new BootstrapFewShot({ ...this.options, maxBootstrappedDemos: size })
    const program = await bootstrap.compile(student, { trainset: shuffled, teacher, signal })
    signal?.throwIfAborted()
    return program
  }
}

/** The long name that DSPy gives it. */
export { BootstrapRS as BootstrapFewShotWithRandomSearch }

function labelOf(seed: number): string {
  return seed === -3 ? 'zero-shot' : seed === -2 ? 'labeled demos' : seed === -1 ? 'unshuffled' : `seed ${seed}`
}
