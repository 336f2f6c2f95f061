// The teacher at work: it solves examples one after the other, and its traces become demos where the metric was content.
// After DSPy's teleprompt/bootstrap.py.

import {
  context,
  currentSettings,
  Example,
  fieldsOf,
  type LMOptions,
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
import type { BootstrapFewShotOptions } from './bootstrap-few-shot'

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

interface SessionInput {
  readonly teacher: Module
  readonly trainset: readonly Example[]
  readonly signal: AbortSignal | null
}

/** One compile of BootstrapFewShot. */
export class BootstrapSession {
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

/** FNV-1a of the demos' JSON: the same demos draw the same one. */
function hashOf(demos: readonly Example[]): number {
  let hash = 0x811c9dc5
  for (const char of JSON.stringify(demos)) hash = Math.imul(hash ^ char.codePointAt(0)!, 0x01000193)
  return hash >>> 0
}
