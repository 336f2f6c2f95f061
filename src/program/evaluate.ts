// Evaluate: runs a program over examples, several at a time, and averages a metric.

import { ArborError, OptionError } from '../errors'
import { context, currentSettings, newActivityId, reportProgress } from './context'
import { EvaluationResult, type ExampleResult } from './evaluation-result'
import { checkExamples, type Example, fieldsOf, Prediction } from './example'
import type { Loose } from './infer-types'
import type { Module } from './module'
import { pyRound } from './python-text'
import { type RewardsMetric, type RewardWeights, rewardOf } from './rewards'

/** How good a prediction is: true and false count 1 and 0. `trace` is there only where an optimizer asks. */
export type Metric = (
  example: Loose,
  prediction: Loose,
  trace?: unknown,
) => number | boolean | Prediction | Promise<number | boolean | Prediction>

export interface EvaluateOptions {
  readonly devset: readonly Example[]
  /** A number or boolean, or with `rewardWeights` several rewards by name. */
  readonly metric: RewardsMetric
  /** What each of several rewards counts; the score is their weighted sum. */
  readonly rewardWeights?: RewardWeights | null
  /** Examples at a time. */
  readonly numThreads?: number
  /** Tell the progress observer. */
  readonly displayProgress?: boolean
  /** Rows to show of the result table: true all, false none. */
  readonly displayTable?: boolean | number
  /** Failing examples at which the evaluation stops. */
  readonly maxErrors?: number
  /** The score of an example whose program or metric fails. */
  readonly failureScore?: number
  /** Keep stack traces in the results' error texts. */
  readonly provideTraceback?: boolean
  /** In progress reports. */
  readonly title?: string
  readonly signal?: AbortSignal
}

/**
 * @example
 * const evaluate = new dspy.Evaluate({ devset, metric: exactMatch, numThreads: 4 })
 * const { score } = await evaluate.call(program)
 */
export class Evaluate {
  readonly options: EvaluateOptions

  constructor(options: EvaluateOptions) {
    this.options = options
  }

  /**
   * Evaluates a program; `changes` go over the options for this call.
   * @throws OptionError for an empty devset; ArborError when `maxErrors` examples failed; the signal's reason when aborted
   */
  async call(program: Module, changes: Partial<EvaluateOptions> = {}): Promise<EvaluationResult> {
    const options = { ...this.options, ...changes }
    const { metric, title = 'Evaluation' } = options
    checkOptions(options)
    const settings = currentSettings()
    const run = new Run(options, { maxErrors: options.maxErrors ?? settings.maxErrors, id: newActivityId('evaluate'), title })
    const threads = Math.max(1, options.numThreads ?? settings.numThreads)
    run.report('start')
    const { signal } = run.stop // the calls in flight end with it, whoever stops first
    const unlink = [options.signal, settings.signal].map((outer) => forwardAbort(outer, run.stop))
    try {
      await context({ signal }, () => Promise.all(Array.from({ length: threads }, () => run.work(program, signal))))
      options.signal?.throwIfAborted()
      settings.signal?.throwIfAborted()
      if (run.fatal) throw run.fatal
      const result = new EvaluationResult(percent(run.results), run.results, metricName(metric), options.displayTable ?? true)
      run.report('end', result)
      if (result.failures().length === result.results.length)
        settings.onWarning?.(
          `${title}: the program or its metric failed on every example. The first: ${result.results[0]!.error}`,
        )
      return result
    } catch (error) {
      run.report('end')
      throw error
    } finally {
      for (const undo of unlink) undo()
    }
  }
}

/** Aborts `inner` when `outer` does; answers how to undo that. */
function forwardAbort(outer: AbortSignal | null | undefined, inner: AbortController): () => void {
  const abort = () => inner.abort(outer?.reason)
  if (outer?.aborted) abort()
  outer?.addEventListener('abort', abort, { once: true })
  return () => outer?.removeEventListener('abort', abort)
}

function checkOptions({ devset, metric, numThreads }: EvaluateOptions): void {
  if (!Array.isArray(devset) || devset.length === 0)
    throw new OptionError('The devset is empty: Evaluate needs at least one example.')
  checkExamples(devset, 'devset')
  if (typeof metric !== 'function')
    throw new OptionError(`The metric must be a function (example, prediction) => number, but it is ${String(metric)}.`)
  if (numThreads !== undefined && !(Number.isInteger(numThreads) && numThreads > 0)) {
    throw new OptionError(`numThreads must be a whole number from 1 on, but it is ${numThreads}.`)
  }
}

/** `round(100 · sum / count, 2)`. */
function percent(results: readonly ExampleResult[]): number {
  const sum = results.reduce((total, { score }) => total + Number(score), 0)
  return pyRound((100 * sum) / results.length, 2)
}

function metricName(metric: RewardsMetric): string {
  return metric.name === '' ? 'metric' : metric.name
}

/** One evaluation: workers take the next example until none is left or too many failed. */
class Run {
  readonly results: ExampleResult[] = []
  readonly stop = new AbortController()
  fatal: ArborError | null = null
  #next = 0
  #done = 0
  #sum = 0
  #errors: string[] = []

  constructor(
    readonly options: EvaluateOptions,
    readonly at: { readonly maxErrors: number; readonly id: string; readonly title: string },
  ) {}

  async work(program: Module, signal: AbortSignal): Promise<void> {
    while (this.#next < this.options.devset.length && !signal.aborted) {
      const index = this.#next++
      const example = this.options.devset[index]!
      try {
        const prediction = (await program.call(fieldsOf(example.inputs()) as never)) as Prediction
        const score = this.#score(await this.options.metric(example, prediction))
        this.#settle(index, { example, prediction, score, error: null })
      } catch (error) {
        if (signal.aborted) return
        const text = this.#describe(error)
        this.#countError(text, error)
        this.#settle(index, {
          example,
          prediction: new Prediction({}),
          score: this.options.failureScore ?? 0,
          error: text,
          cause: error,
        })
      }
    }
  }

  #score(value: unknown): number | boolean {
    const { rewardWeights } = this.options
    return rewardWeights ? rewardOf(value, rewardWeights, scoreOf).reward : scoreOf(value)
  }

  #describe(error: unknown): string {
    if (!(error instanceof Error)) return String(error)
    return this.options.provideTraceback ? (error.stack ?? error.message) : `${error.name}: ${error.message}`
  }

  #settle(index: number, result: ExampleResult): void {
    this.results[index] = result
    this.#done++
    if (result.error === null) this.#sum += Number(result.score)
    this.report('item', result)
  }

  #countError(text: string, cause: unknown): void {
    this.#errors.push(text)
    if (this.#errors.length < this.at.maxErrors || this.fatal) return
    this.fatal = new ArborError(
      `Evaluation stopped: ${this.#errors.length} of ${this.#done + 1} examples failed (maxErrors is ${this.at.maxErrors}). The last: ${text}`,
      { code: 'too_many_errors', cause },
    )
    this.stop.abort(this.fatal)
  }

  report(phase: 'start' | 'item' | 'end', payload?: unknown): void {
    if (!this.options.displayProgress) return
    const scored = this.#done - this.#errors.length
    const note = this.#done === 0 ? '' : `average ${pyRound((100 * this.#sum) / Math.max(1, scored), 1)} %`
    const failed = this.#errors.length > 0 ? `, ${this.#errors.length} failed` : ''
    reportProgress({
      kind: `evaluate:${phase}`,
      id: this.at.id,
      title: this.at.title,
      done: this.#done,
      total: this.options.devset.length,
      note: note + failed,
      payload,
    })
  }
}

/** @throws OptionError for what is no finite number, boolean or prediction with a score */
export function scoreOf(value: unknown): number | boolean {
  if (typeof value === 'boolean') return value
  const score = value instanceof Prediction ? value.valueOf() : value
  if (typeof score === 'number' && Number.isFinite(score)) return score
  const shown = typeof score === 'number' ? String(score) : `${JSON.stringify(score)} (${typeof score})`
  throw new OptionError(`The metric returned ${shown}; it must return a finite number or a boolean.${weightsHint(score)}`)
}

/** A record of numbers is meant for someone who weighs them. */
function weightsHint(score: unknown): string {
  return typeof score === 'object' && score !== null ? ' Several rewards by name need rewardWeights.' : ''
}
