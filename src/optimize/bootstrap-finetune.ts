// BootstrapFinetune: a teacher solves examples; what its predictors saw and said where the metric was content becomes training data.
// After DSPy's teleprompt/bootstrap_finetune.py.

import { OptionError } from '../errors'
import {
  type Adapter,
  type BaseLM,
  ChatAdapter,
  context,
  currentSettings,
  type Example,
  fieldsOf,
  type Metric,
  type Module,
  newActivityId,
  type Prediction,
  PythonRandom,
  reportProgress,
  scoreOf,
  type TraceEntry,
  withTrace,
} from '../program'
import type { FineTuningEvent, FineTuningStep, FinetuneKwargs, Message } from '../protocol'
import type { FinetuneProvider } from './arbor-provider'
import { checkTrainset } from './candidates'
import { limited } from './limited'
import { notebookSignal } from './notebook-signal'

export interface BootstrapFinetuneOptions {
  /** Which runs of the teacher are worth learning from: those with a score other than 0. Without one all are. */
  readonly metric?: Metric | null
  /** true: one model for all predictors that share one now. false: one for each predictor, trained on its own calls. */
  readonly multitask?: boolean
  /** Hyperparameters of the training, for all models or each its own. */
  readonly trainKwargs?: FinetuneKwargs | ReadonlyMap<BaseLM, FinetuneKwargs>
  /** Writes the training data. Default: the configured adapter, else ChatAdapter. */
  readonly adapter?: Adapter | ReadonlyMap<BaseLM, Adapter> | null
  /** true: demonstrations are left out of the training data, and of the program afterwards. */
  readonly excludeDemos?: boolean
  /** Examples at a time; the setting's `numThreads` unless given. */
  readonly numThreads?: number | null
}

export interface FinetuneCompileOptions<P extends Module = Module> {
  readonly trainset: readonly Example[]
  /** Shows how it is done; default: the student itself. Of several each solves all examples. */
  readonly teacher?: P | readonly P[]
  /** Aborting cancels the training; nothing is left of it. In a notebook, interrupting the cell does the same. */
  readonly signal?: AbortSignal
}

/** One model's training. */
export interface FinetuneRun {
  /** The names of the predictors that it serves. */
  readonly predictors: readonly string[]
  /** Conversations it was trained on. */
  readonly rows: number
  /** The loss of every update. */
  readonly steps: readonly FineTuningStep[]
  /** The trained model's name; null before the end. */
  readonly model: string | null
}

/** The payload of finetune:item and finetune:end. */
export type FinetuneProgress =
  | { readonly step: FineTuningStep }
  | { readonly activity: string }
  | { readonly status: 'succeeded' | 'failed'; readonly reason: string | null }

interface Bootstrapped {
  readonly program: Module
  readonly trace: readonly TraceEntry[]
}

interface Target {
  readonly lm: BaseLM
  readonly predictors: string[]
}

export class BootstrapFinetune {
  readonly compileParameters = ['trainset', 'teacher', 'signal'] as const
  readonly options: Required<BootstrapFinetuneOptions>
  /** What the last compile trained, and what it left out. */
  runs: FinetuneRun[] = []
  notes: string[] = []

  constructor(options: BootstrapFinetuneOptions = {}) {
    this.options = {
      metric: options.metric ?? null,
      multitask: options.multitask ?? true,
      trainKwargs: options.trainKwargs ?? {},
      adapter: options.adapter ?? null,
      excludeDemos: options.excludeDemos ?? false,
      numThreads: options.numThreads ?? null,
    }
  }

  /**
   * A copy of the student with fine-tuned models, marked as compiled.
   * @throws OptionError where there is nothing to train or nothing to train on; ProtocolError when a training fails
   */
  async compile<P extends Module>(student: P, options: FinetuneCompileOptions<P>): Promise<P> {
    checkTrainset(options.trainset, 'BootstrapFinetune')
    const targets = this.targets(student)
    const given = options.teacher ?? student
    const teachers = (Array.isArray(given) ? given : [given]) as readonly P[]
    for (const teacher of teachers) checkSameShape(student, teacher)
    const signal = options.signal ?? currentSettings().signal ?? notebookSignal()
    this.runs = []
    this.notes = []
    const good = await context({ signal: signal ?? null }, () => this.bootstrap(teachers, options.trainset))
    const program = student.deepcopy()
    const predictors = new Map(program.namedPredictors())
    for (const target of targets) {
      const lm = await this.finetune(target, good, signal)
      for (const name of target.predictors) predictors.get(name)!.lm = lm
    }
    if (this.options.excludeDemos) for (const predictor of predictors.values()) predictor.demos = []
    program.compiled = true
    return program
  }

  /** One model to train for each language model, or with `multitask: false` for each predictor. */
  private targets(student: Module): Target[] {
    const targets: Target[] = []
    for (const [name, predictor] of student.namedPredictors()) {
      const lm = predictor.lm ?? currentSettings().lm
      if (!lm) throw new OptionError(`Predictor ${name} has no LM. Call program.setLm(lm) or dspy.configure({ lm }) first.`)
      providerOf(lm)
      const shared = this.options.multitask ? targets.find((target) => target.lm === lm) : undefined
      if (shared) shared.predictors.push(name)
      else targets.push({ lm, predictors: [name] })
    }
    if (targets.length === 0) throw new OptionError('The program has no predictor: there is nothing to train.')
    return targets
  }

  /** The runs worth learning from, teacher by teacher, in the order of the examples. */
  private async bootstrap(teachers: readonly Module[], trainset: readonly Example[]): Promise<Bootstrapped[]> {
    const jobs = teachers.flatMap((program) => trainset.map((example) => ({ program, example })))
    const id = newActivityId('bootstrap')
    let [done, kept] = [0, 0]
    const report = (phase: 'start' | 'item' | 'end') => {
      const note = `${kept} ${kept === 1 ? 'run' : 'runs'} to learn from`
      reportProgress({ kind: `bootstrap:${phase}`, id, title: 'Bootstrapping', done, total: jobs.length, note })
    }
    report('start')
    const errors: Error[] = []
    const runs = await limited(jobs, this.options.numThreads ?? currentSettings().numThreads, async (job) => {
      const run = await this.solve(job).catch((error: Error) => {
        currentSettings().signal?.throwIfAborted()
        errors.push(error)
        return null
      })
      done++
      if (run) kept++
      report('item')
      return run
    })
    report('end')
    if (errors.length === jobs.length) throw errors[0]
    if (errors.length > 0)
      this.notes.push(`${errors.length} of ${jobs.length} runs failed and are left out: ${errors[0]!.message}`)
    const good = runs.filter((run): run is Bootstrapped => run !== null)
    if (good.length > 0) return good
    throw new OptionError(
      `None of ${jobs.length} runs was worth learning from by the metric. Take a stronger teacher, easier examples, or a more lenient metric.`,
    )
  }

  /** One run of a teacher; null when the metric rejects it. */
  private async solve({ program, example }: { program: Module; example: Example }): Promise<Bootstrapped | null> {
    const { result, trace } = await withTrace(() => program.call(fieldsOf(example.inputs()) as never) as Promise<Prediction>)
    const { metric } = this.options
    const good = !metric || Boolean(Number(scoreOf(await metric(example as never, result as never, trace))))
    return good ? { program, trace } : null
  }

  /** The calls of the target's predictors, and with `multitask` of all others too, as conversations in shuffled order. */
  private trainData({ lm, predictors }: Target, good: readonly Bootstrapped[]): { messages: Message[] }[] {
    const { multitask, excludeDemos } = this.options
    const adapter = ofModel(this.options.adapter, lm) ?? currentSettings().adapter ?? new ChatAdapter()
    const rows = good.flatMap(({ program, trace }) => {
      const names = new Map(program.namedPredictors().map(([name, predictor]) => [predictor, name]))
      const calls = trace.filter((call) => call.prediction && (multitask || predictors.includes(names.get(call.predictor) ?? '')))
      return calls.map(({ predictor, inputs, prediction }) =>
        adapter.formatFinetuneData(predictor.signature, excludeDemos ? [] : predictor.demos, inputs, fieldsOf(prediction!)),
      )
    })
    new PythonRandom(0).shuffle(rows)
    if (rows.length === 0)
      throw new OptionError(`No good run called ${predictors.join(', ')}: there is nothing to train its model on.`)
    return rows
  }

  private async finetune(target: Target, good: readonly Bootstrapped[], signal: AbortSignal | undefined): Promise<BaseLM> {
    const trainData = this.trainData(target, good)
    const steps: FineTuningStep[] = []
    const at = this.runs.push({ predictors: target.predictors, rows: trainData.length, steps, model: null }) - 1
    const report = reporter(target, steps)
    const onEvent = (event: FineTuningEvent) => {
      if (event.type === 'metrics') steps.push(event.data)
      if (event.level === 'warn') this.notes.push(event.message)
      report('item', event.type === 'metrics' ? { step: event.data } : { activity: event.message })
    }
    report('start', { activity: `${trainData.length} conversations` })
    try {
      const provider = providerOf(target.lm)
      await provider.kill(target.lm)
      const trainKwargs = ofModel(this.options.trainKwargs, target.lm) ?? {}
      const lm = await provider.finetune(target.lm, { trainData, trainKwargs, signal, onEvent })
      this.runs[at] = { ...this.runs[at]!, model: lm.model }
      report('end', { status: 'succeeded', reason: null })
      return lm
    } catch (error) {
      report('end', { status: 'failed', reason: error instanceof Error ? error.message : String(error) })
      throw error
    }
  }
}

function reporter({ predictors }: Target, steps: readonly FineTuningStep[]) {
  const id = newActivityId('finetune')
  return (phase: 'start' | 'item' | 'end', payload: FinetuneProgress): void => {
    const last = steps.at(-1)
    const note = last ? `loss ${last.loss.toFixed(4)}` : ''
    const title = `Fine-tuning ${predictors.join(', ')}`
    reportProgress({ kind: `finetune:${phase}`, id, title, done: last?.step ?? 0, total: last?.steps ?? 0, note, payload })
  }
}

function ofModel<T extends object>(given: T | ReadonlyMap<BaseLM, T> | null, lm: BaseLM): T | null {
  return given instanceof Map ? (given.get(lm) ?? null) : (given as T | null)
}

/** @throws OptionError for a model that nobody can fine-tune */
function providerOf(lm: BaseLM): FinetuneProvider<BaseLM> {
  const { provider } = lm as { provider?: Partial<FinetuneProvider<BaseLM>> }
  if (typeof provider?.finetune === 'function') return provider as FinetuneProvider<BaseLM>
  throw new OptionError(
    `The LM ${lm.model} can't be fine-tuned: it needs { provider: new arbor.ArborProvider(), apiBase: server.baseUrl }.`,
  )
}

/** @throws OptionError where a teacher's calls would not be those of the student's predictors */
function checkSameShape(student: Module, teacher: Module): void {
  const names = (program: Module) => program.namedPredictors().map(([name]) => name)
  const [own, other] = [names(student), names(teacher)]
  if (own.join('\n') === other.join('\n')) return
  throw new OptionError(
    `Student and teacher must be the same program, but the student's predictors are ${own.join(', ')} and the teacher's ${other.join(', ')}.`,
  )
}
