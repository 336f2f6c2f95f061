// BootstrapFewShot: the teacher solves examples; what its predictors saw and said where the metric was content become their demos.
// After DSPy's teleprompt/bootstrap.py.

import { OptionError } from '../errors'
import {
  context,
  currentSettings,
  Example,
  fieldsOf,
  type LMOptions,
  type Metric,
  type Module,
  newActivityId,
  type Prediction,
  PythonRandom,
  reportProgress,
  type Settings,
  scoreOf,
  type TraceEntry,
  withTrace,
} from '../program'
import { checkTrainset, type Optimized, type PromptCompileOptions, withResult } from './candidates'
import { freshCopy } from './fresh-copy'
import { LabeledFewShot } from './labeled-few-shot'
import { notebookSignal } from './notebook-signal'
import { SpendingMeter } from './spending'

export interface BootstrapFewShotOptions {
  /** Which runs of the teacher are worth showing; without one all are. It gets the trace as its third argument. */
  readonly metric?: Metric | null
  /** The score from which a run is worth showing; without one (0 is none, as in DSPy) any score but 0. */
  readonly metricThreshold?: number | null
  /** Settings the teacher runs under, e.g. a stronger `lm`. */
  readonly teacherSettings?: Partial<Settings>
  /** Examples the teacher solves, at most. */
  readonly maxBootstrappedDemos?: number
  /** Demos of a predictor in all, at most: plain examples fill up what the teacher left. */
  readonly maxLabeledDemos?: number
  /** Attempts at an example; those after the first sample at temperature 1. */
  readonly maxRounds?: number
  /** Failing examples at which compile gives up; null: the setting of that name. */
  readonly maxErrors?: number | null
}

/** What the last compile did. */
export interface BootstrapRun {
  /** Examples solved. */
  readonly bootstrapped: number
  /** Examples tried, and attempts made at them. */
  readonly examples: number
  readonly attempts: number
  readonly errors: readonly string[]
  /** The examples that weren't solved, shuffled: plain demos are drawn from them. */
  readonly rest: readonly Example[]
}

/**
 * Runs of a teacher that the metric liked, as demos.
 * @example const program = await new dspy.BootstrapFewShot({ metric, maxBootstrappedDemos: 4 }).compile(student, { trainset })
 */
export class BootstrapFewShot {
  readonly options: Required<BootstrapFewShotOptions>
  run: BootstrapRun | null = null

  constructor(options: BootstrapFewShotOptions = {}) {
    this.options = {
      metric: options.metric ?? null,
      metricThreshold: options.metricThreshold ?? null,
      teacherSettings: options.teacherSettings ?? {},
      maxBootstrappedDemos: options.maxBootstrappedDemos ?? 4,
      maxLabeledDemos: options.maxLabeledDemos ?? 16,
      maxRounds: options.maxRounds ?? 1,
      maxErrors: options.maxErrors ?? null,
    }
  }

  /**
   * A copy of the student with demos, marked as compiled. An abort ends it with the demos gathered so far.
   * @throws OptionError without examples, or when student and teacher are different programs; the last error after `maxErrors`
   */
  async compile<P extends Module>(student: P, options: PromptCompileOptions<P>): Promise<Optimized<P>> {
    const { trainset } = options
    checkTrainset(trainset, 'BootstrapFewShot')
    const program = freshCopy(student)
    const teacher = await this.prepareTeacher(student, options)
    checkPair(program, teacher)
    const signal = options.signal ?? currentSettings().signal ?? notebookSignal() ?? null
    const meter = new SpendingMeter()
    const session = new Session(this.options, { teacher, trainset, signal })
    await meter.count(() => context({ signal }, () => session.solve()))
    this.run = session.run
    giveDemos(program, session.demos, { rest: this.run.rest, ...this.options })
    program.compiled = true
    const interrupted = signal?.aborted ?? false
    const none = { candidatePrograms: [], mbCandidatePrograms: [], trialLogs: {}, score: null, notes: session.run.errors }
    return withResult(program, { ...none, spent: meter.spent, interrupted })
  }

  /** The teacher, else the student; where it isn't compiled, with labeled demos. A model in `teacherSettings` is the one that teaches. */
  private async prepareTeacher<P extends Module>(student: P, { teacher, trainset }: PromptCompileOptions<P>): Promise<P> {
    const copy = (teacher ?? student).deepcopy()
    if (this.options.teacherSettings.lm) copy.setLm(null)
    const k = this.options.maxLabeledDemos
    return k > 0 && !copy.compiled ? new LabeledFewShot({ k }).compile(copy, { trainset }) : copy
  }
}

/** @throws OptionError where a demo of the teacher's predictor would not fit the student's */
function checkPair(student: Module, teacher: Module): void {
  if (student.compiled)
    throw new OptionError(
      'The student is already compiled. Pass the program you started from, or set `student.compiled = false`.',
    )
  const [own, other] = [student.namedPredictors(), teacher.namedPredictors()]
  const text = (list: typeof own) => list.map(([name, { signature }]) => `${name}: ${signature.signature}`).join('; ')
  const same = (i: number) => own[i]![0] === other[i]?.[0] && own[i]![1].signature.equals(other[i]![1].signature)
  if (own.length !== other.length || !own.every((_, i) => same(i)))
    throw new OptionError(
      `Student and teacher must be the same program with the same signatures, but the student has (${text(own)}) and the teacher (${text(other)}).`,
    )
}

interface SessionInput {
  readonly teacher: Module
  readonly trainset: readonly Example[]
  readonly signal: AbortSignal | null
}

/** The teacher at work on the examples, one after the other. */
class Session {
  /** Demos by predictor name. */
  readonly demos: Record<string, Example[]> = {}
  readonly #solved = new Set<number>()
  readonly #errors: string[] = []
  #examples = 0
  #attempts = 0

  constructor(
    readonly options: Required<BootstrapFewShotOptions>,
    readonly input: SessionInput,
  ) {
    for (const [name] of input.teacher.namedPredictors()) this.demos[name] = []
  }

  get run(): BootstrapRun {
    return {
      bootstrapped: this.#solved.size,
      examples: this.#examples,
      attempts: this.#attempts,
      errors: this.#errors,
      rest: this.rest,
    }
  }

  /** The examples that weren't solved, shuffled by `random.Random(0)`. */
  private get rest(): Example[] {
    const rest = this.input.trainset.filter((_, i) => !this.#solved.has(i))
    new PythonRandom(0).shuffle(rest)
    return rest
  }

  async solve(): Promise<void> {
    const { trainset, signal } = this.input
    const report = this.reporter()
    report('start')
    for (const [i, example] of trainset.entries()) {
      if (this.#solved.size >= this.options.maxBootstrappedDemos || signal?.aborted) break
      for (let round = 0; round < this.options.maxRounds && !this.#solved.has(i); round++)
        if (await this.attempt(example, round)) this.#solved.add(i)
      this.#examples++
      report('item')
    }
    report('end')
  }

  /** One try of the teacher at one example. Answers whether its trace became demos. */
  private async attempt(example: Example, round: number): Promise<boolean> {
    this.#attempts++
    try {
      const { prediction, trace } = await this.runTeacher(example, round)
      if (!(await this.isGood(example, prediction, trace))) return false
      this.keep(trace)
      return true
    } catch (error) {
      if (this.input.signal?.aborted) return false
      this.#errors.push(error instanceof Error ? `${error.name}: ${error.message}` : String(error))
      if (this.#errors.length >= (this.options.maxErrors ?? currentSettings().maxErrors)) throw error
      return false
    }
  }

  /** The teacher's answer, without the example itself among its demos. As in DSPy, one that failed stays out of them. */
  private async runTeacher(example: Example, round: number): Promise<{ prediction: Prediction; trace: TraceEntry[] }> {
    const predictors = this.input.teacher.predictors()
    const demos = predictors.map((predictor) => predictor.demos)
    for (const predictor of predictors) predictor.demos = predictor.demos.filter((demo) => !example.equals(demo))
    const call = () => this.input.teacher.call(fieldsOf(example.inputs()) as never) as Promise<Prediction>
    const settings = { ...this.options.teacherSettings, ...freshSample(round) }
    const { result, trace } = await context(settings, () => withTrace(call))
    for (const [i, predictor] of predictors.entries()) predictor.demos = demos[i]!
    return { prediction: result, trace }
  }

  private async isGood(example: Example, prediction: Prediction, trace: readonly TraceEntry[]): Promise<boolean> {
    const { metric, metricThreshold } = this.options
    if (!metric) return true
    const score = Number(scoreOf(await metric(example as never, prediction as never, trace)))
    return metricThreshold ? score >= metricThreshold : Boolean(score)
  }

  /** A predictor that was called several times keeps its last call or, as often, one of the earlier ones. */
  private keep(trace: readonly TraceEntry[]): void {
    for (const [name, predictor] of this.input.teacher.namedPredictors()) {
      const calls = trace.filter((entry) => entry.predictor === predictor && entry.prediction)
      const made = calls.map(({ inputs, prediction }) => new Example({ augmented: true, ...inputs, ...fieldsOf(prediction!) }))
      if (made.length > 1) {
        const random = new PythonRandom(hashOf(made))
        this.demos[name]!.push(random.random() < 0.5 ? random.choice(made.slice(0, -1)) : made.at(-1)!)
      } else this.demos[name]!.push(...made)
    }
  }

  private reporter(): (phase: 'start' | 'item' | 'end') => void {
    const id = newActivityId('bootstrap')
    const total = this.input.trainset.length
    return (phase) => {
      const note = `${this.#solved.size} of ${this.options.maxBootstrappedDemos} demos`
      reportProgress({ kind: `bootstrap:${phase}`, id, title: 'Bootstrapping', done: this.#examples, total, note })
    }
  }
}

/** Rounds after the first ask anew at temperature 1: the rollout id keeps them apart in every cache. */
function freshSample(round: number): Partial<Settings> {
  if (round === 0) return {}
  const { lmOptions } = currentSettings()
  const sample = { rolloutId: round, temperature: 1 }
  const outer = () => (typeof lmOptions === 'function' ? lmOptions() : lmOptions)
  return { lmOptions: (): LMOptions => ({ ...outer(), ...sample }) }
}

/** The bootstrapped demos, then plain examples. Each predictor draws its plain ones from what the one before it has drawn, as in DSPy. */
function giveDemos(
  program: Module,
  demos: Readonly<Record<string, readonly Example[]>>,
  options: Required<BootstrapFewShotOptions> & { readonly rest: readonly Example[] },
): void {
  const random = new PythonRandom(0)
  let raw = options.rest
  for (const [name, predictor] of program.namedPredictors()) {
    const augmented = demos[name]!.slice(0, options.maxBootstrappedDemos)
    raw = random.sample(raw, Math.max(0, Math.min(options.maxLabeledDemos - augmented.length, raw.length)))
    predictor.demos = [...augmented, ...raw]
  }
}

/** FNV-1a of the demos' JSON: the same demos draw the same one. */
function hashOf(demos: readonly Example[]): number {
  let hash = 0x811c9dc5
  for (const char of JSON.stringify(demos)) hash = Math.imul(hash ^ char.codePointAt(0)!, 0x01000193)
  return hash >>> 0
}
