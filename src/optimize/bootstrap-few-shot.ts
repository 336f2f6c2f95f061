// BootstrapFewShot: the teacher solves examples; what its predictors saw and said where the metric was content become their demos.
// After DSPy's teleprompt/bootstrap.py.

import { OptionError } from '../errors'
import { context, currentSettings, type Example, type Metric, type Module, PythonRandom, type Settings } from '../program'
import { type BootstrapRun, BootstrapSession } from './bootstrap-session'
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
    const session = new BootstrapSession(this.options, { teacher, trainset, signal })
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
