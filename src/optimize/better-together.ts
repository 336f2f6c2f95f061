// BetterTogether: any optimizers one after the other, prompts and weights in turn; every intermediate program is scored, and the best one wins.
// Follows dspy/teleprompt/bettertogether.py.

import { nearestName, OptionError } from '../errors'
import { type BaseLM, currentSettings, Evaluate, type Example, type Metric, type Module, PythonRandom } from '../program'
import { CandidateSearch, checkTrainset, type Optimized, type SearchResult } from './candidates'

const ARROW = ' -> '

/** What BetterTogether asks of an optimizer: GEPA, MIPROv2, BootstrapFinetune, ArborGRPO and all the others are such. */
export interface Optimizer {
  // A method, so that optimizers with further options of their own fit in.
  compile(student: Module, options: { readonly trainset: readonly Example[] }): Promise<Module>
  /** Names of what `compile` takes besides the student. Without it: trainset, valset, teacher and signal, and anything asked for. */
  readonly compileParameters?: readonly string[]
}

export interface BetterTogetherCompileOptions<P extends Module = Module> {
  readonly trainset: readonly Example[]
  /** Judges the programs between the steps. Without one the first `valsetRatio` of the trainset is held out. */
  readonly valset?: readonly Example[]
  readonly teacher?: P
  /** From 0 (no validation: the latest program is the result) to below 1. Default 0.1. */
  readonly valsetRatio?: number
  /** Default true. */
  readonly shuffleTrainsetBetweenSteps?: boolean
  /** Optimizers by their names, in order. Default 'p -> w -> p'. */
  readonly strategy?: string
  /** Further options of an optimizer's `compile`, by its name; they win over those of this compile. */
  readonly optimizerCompileArgs?: Readonly<Record<string, Readonly<Record<string, unknown>>>>
  readonly numThreads?: number
  readonly maxErrors?: number
  /** Order of the examples. Default 0. */
  readonly seed?: number
  readonly signal?: AbortSignal
}

export type BetterTogetherResult<P extends Module> = Omit<Optimized<P>, 'candidatePrograms'> & {
  /** Every program between the steps, best first (without validation: in order); `strategy` is how it came about. */
  readonly candidatePrograms: readonly BetterTogetherCandidate<P>[]
  /** Whether an optimizer failed, so that the steps after it are missing. */
  readonly flagCompilationErrorOccurred: boolean
  /** What it threw. */
  readonly compilationError: Error | null
} & P

export interface BetterTogetherCandidate<P extends Module = Module> {
  readonly program: P
  /** Percent; null without validation. */
  readonly score: number | null
  /** '', 'p', 'p -> w', … */
  readonly strategy: string
}

/**
 * @example
 * const both = new dspy.BetterTogether({ metric, optimizers: { p: new dspy.GEPA({ … }), w: new arbor.ArborGRPO({ … }) } })
 * const better = await both.compile(program, { trainset, strategy: 'p -> w' })
 */
export class BetterTogether {
  readonly metric: Metric
  readonly optimizers: Readonly<Record<string, Optimizer>>
  readonly compileParameters = [
    'trainset',
    'valset',
    'teacher',
    'valsetRatio',
    'shuffleTrainsetBetweenSteps',
    'strategy',
    'optimizerCompileArgs',
    'numThreads',
    'maxErrors',
    'seed',
    'signal',
  ] as const
  /** The search of the last compile, with every candidate; also after an error. */
  search: CandidateSearch<Module> | null = null

  /** @throws OptionError without a metric or optimizers */
  constructor({ metric, optimizers }: { readonly metric: Metric; readonly optimizers: Readonly<Record<string, Optimizer>> }) {
    if (typeof metric !== 'function')
      throw new OptionError(
        `BetterTogether needs a metric: a function (example, prediction) → number or boolean; got ${String(metric)}.`,
      )
    if (Object.keys(optimizers ?? {}).length === 0)
      throw new OptionError(
        'BetterTogether needs optimizers under the names of the strategy, e.g. optimizers: { p: new dspy.BootstrapRS({ metric }), w: new arbor.ArborGRPO({ metric }) }.',
      )
    for (const [name, optimizer] of Object.entries(optimizers))
      if (typeof optimizer?.compile !== 'function')
        throw new OptionError(`Optimizer '${name}' must be an optimizer with a compile method, but it is ${String(optimizer)}.`)
    this.metric = metric
    this.optimizers = optimizers
  }

  /**
   * Runs the strategy. The student stays as it was. An optimizer that fails ends it with the best program so far and
   * `flagCompilationErrorOccurred`; so does an interrupt, with `interrupted`.
   * @throws OptionError for an empty trainset, an unknown optimizer in the strategy, or a compile argument its optimizer doesn't take
   */
  async compile<P extends Module>(student: P, options: BetterTogetherCompileOptions<P>): Promise<BetterTogetherResult<P>> {
    if (student.compiled)
      throw new OptionError('The student is compiled already: BetterTogether starts from a program as it was written.')
    checkTrainset(options.trainset, 'BetterTogether')
    const { trainset, valset } = splitTrainset(options)
    const steps = this.#readStrategy(options.strategy ?? 'p -> w -> p')
    this.#checkCompileArgs(options)
    const title = 'BetterTogether'
    const search = new CandidateSearch<P>({
      title,
      total: steps.length + 1,
      ...(options.signal ? { signal: options.signal } : {}),
    })
    this.search = search as unknown as CandidateSearch<Module>
    const run = new StrategyRun<P>(this, { ...options, trainset, valset, search })
    return run.finish(await search.run(() => run.run(student, steps)))
  }

  #readStrategy(strategy: string): string[] {
    if (strategy.trim() === '') throw new OptionError("The strategy is empty; name optimizers in order, e.g. 'p -> w'.")
    const steps = strategy.split(ARROW)
    const unknown = steps.filter((step) => !Object.hasOwn(this.optimizers, step))
    if (unknown.length === 0) return steps
    throw new OptionError(
      `The strategy names ${quoted(unknown)}, but the optimizers are ${quoted(Object.keys(this.optimizers))}. Write their names with ' -> ' between, blanks included.`,
    )
  }

  #checkCompileArgs({ optimizerCompileArgs = {}, teacher }: BetterTogetherCompileOptions): void {
    for (const [name, args] of Object.entries(optimizerCompileArgs)) {
      const optimizer = this.optimizers[name]
      if (!optimizer)
        throw new OptionError(
          `optimizerCompileArgs names '${name}', but the optimizers are ${quoted(Object.keys(this.optimizers))}.`,
        )
      if ('student' in args)
        throw new OptionError(
          `optimizerCompileArgs['${name}'] holds 'student'; the same student goes through all steps. Leave it out.`,
        )
      const known = optimizer.compileParameters
      const unknown = known && Object.keys(args).filter((key) => !known.includes(key))
      if (unknown && unknown.length > 0) {
        const near = nearestName(unknown[0]!, known)
        throw new OptionError(
          `Optimizer '${name}' (${optimizer.constructor.name}) takes no compile argument ${quoted(unknown)}; it takes ${quoted(known)}.${near ? ` Did you mean '${near}'?` : ''}`,
        )
      }
      if (teacher && known && !known.includes('teacher') && optimizer.constructor.name === 'GEPA')
        throw new OptionError(
          'GEPA takes no teacher. Leave the teacher out, or give it to the other optimizers through optimizerCompileArgs.',
        )
    }
  }
}

type RunOptions<P extends Module> = BetterTogetherCompileOptions<P> & {
  readonly valset: readonly Example[] | undefined
  readonly search: CandidateSearch<P>
}

/** One compile. */
class StrategyRun<P extends Module> {
  readonly #candidates: BetterTogetherCandidate<P>[] = []
  readonly #random: PythonRandom
  readonly #trainset: Example[]
  #error: Error | null = null

  constructor(
    readonly owner: BetterTogether,
    readonly options: RunOptions<P>,
  ) {
    this.#random = new PythonRandom(options.seed ?? 0)
    this.#trainset = [...options.trainset]
  }

  async run(student: P, steps: readonly string[]): Promise<P> {
    const { search, valset } = this.options
    let program = student.deepcopy()
    await this.#score(program, '')
    for (let i = 0; i < steps.length && !search.signal?.aborted && !this.#error; i++) {
      const strategy = steps.slice(0, i + 1).join(ARROW)
      search.note(`step ${i + 1} of ${steps.length}: ${this.owner.optimizers[steps[i]!]!.constructor.name}`)
      try {
        program = await this.#optimize(steps[i]!, program)
        await this.#score(program, strategy)
      } catch (error) {
        this.#fail(error, strategy)
      }
    }
    return valset ? this.#sorted()[0]!.program : this.#candidates.at(-1)!.program
  }

  /** An interrupted search that has scores ends by them; everything else ends with what is there. */
  #fail(error: unknown, strategy: string): void {
    const { signal } = this.options.search
    if (signal?.aborted) {
      if (this.options.valset) throw error
      return
    }
    this.#error = error instanceof Error ? error : new Error(String(error))
    currentSettings().onWarning?.(`BetterTogether ends at '${strategy}' with the best program so far: ${this.#error.message}`)
  }

  /** The program after one optimizer. Language models that it reset are put back: weight optimizers need one on every predictor. */
  async #optimize(step: string, program: P): Promise<P> {
    const { teacher, valset, optimizerCompileArgs = {}, search, shuffleTrainsetBetweenSteps = true } = this.options
    if (shuffleTrainsetBetweenSteps) this.#random.shuffle(this.#trainset)
    const optimizer = this.owner.optimizers[step]!
    const before = program.predictors().map((predictor) => predictor.lm)
    const args = { trainset: [...this.#trainset], teacher, valset, signal: search.signal, ...optimizerCompileArgs[step] }
    const known = optimizer.compileParameters
    const given = Object.entries(args).filter(([key, value]) => value !== undefined && (!known || known.includes(key)))
    const student = program.deepcopy()
    student.compiled = false
    const optimized = (await optimizer.compile(student, Object.fromEntries(given) as never)) as P
    restoreLms(optimized, before)
    return optimized
  }

  /** Files a copy of the program with its score; an evaluation that fails as a whole scores 0, as in DSPy. */
  async #score(program: P, strategy: string): Promise<void> {
    const { valset, search } = this.options
    const copy = program.deepcopy()
    const label = strategy === '' ? 'as given' : strategy
    const score = valset ? await this.#evaluate(program, valset, label) : null
    this.#candidates.push({ program: copy, score, strategy })
    if (score !== null) search.add({ label, program: copy, score })
  }

  /** An optimizer that was interrupted answers its best so far, judged on the valset it was given: that score has to do. */
  async #evaluate(program: P, devset: readonly Example[], title: string): Promise<number> {
    const { numThreads, maxErrors, search } = this.options
    const own = program as Partial<SearchResult<P>>
    if (search.signal?.aborted && own.interrupted && typeof own.score === 'number') return own.score
    const limits = { ...(numThreads ? { numThreads } : {}), ...(maxErrors ? { maxErrors } : {}) }
    const evaluate = new Evaluate({ devset, metric: this.owner.metric, displayProgress: true, title, ...limits })
    try {
      return (await evaluate.call(program)).score
    } catch (error) {
      search.signal?.throwIfAborted()
      const reason = error instanceof Error ? error.message : String(error)
      currentSettings().onWarning?.(`BetterTogether scores '${title}' 0: ${reason}`)
      return 0
    }
  }

  #sorted(): BetterTogetherCandidate<P>[] {
    return [...this.#candidates].sort((a, b) => (b.score ?? 0) - (a.score ?? 0))
  }

  /** The chosen program with its record. */
  finish(best: Optimized<P>): BetterTogetherResult<P> {
    best.compiled = true
    const record = {
      candidatePrograms: this.#sorted(),
      interrupted: this.options.search.signal?.aborted ?? false,
      flagCompilationErrorOccurred: this.#error !== null,
      compilationError: this.#error,
    }
    for (const [key, value] of Object.entries(record))
      Object.defineProperty(best, key, { value, enumerable: false, configurable: true, writable: true })
    return best as unknown as BetterTogetherResult<P>
  }
}

function restoreLms(program: Module, lms: readonly (BaseLM | null)[]): void {
  const predictors = program.predictors()
  if (predictors.every((predictor) => predictor.lm !== null)) return
  for (const [i, predictor] of predictors.entries()) if (i < lms.length) predictor.lm = lms[i]!
}

/** Without a valset the first examples judge; so small a share that it holds none means no validation. */
function splitTrainset({ trainset, valset, valsetRatio = 0.1 }: BetterTogetherCompileOptions): {
  trainset: readonly Example[]
  valset: readonly Example[] | undefined
} {
  if (!(valsetRatio >= 0 && valsetRatio < 1))
    throw new OptionError(
      `valsetRatio is ${valsetRatio}; a number from 0 to below 1 is needed: the share of the trainset to judge by.`,
    )
  if (valset && valset.length > 0) return { trainset, valset }
  const count = Math.trunc(valsetRatio * trainset.length)
  return { trainset: trainset.slice(count), valset: count > 0 ? trainset.slice(0, count) : undefined }
}

function quoted(names: readonly string[]): string {
  return names.map((name) => `'${name}'`).join(', ')
}
