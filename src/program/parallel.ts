// Parallel: many calls of programs at once, but not too many; answers in the order of the calls. Follows dspy/predict/parallel.py.

import { ArborError, OptionError } from '../errors'
import { context, currentSettings, newActivityId, reportProgress } from './context'
import { Example } from './example'
import type { Module } from './module'

export interface ParallelOptions {
  /** Calls at a time; the setting's `numThreads` unless given. */
  readonly numThreads?: number
  /** Failing calls at which all stops; the setting's `maxErrors` unless given. */
  readonly maxErrors?: number
  /** Call with an example's inputs only; false: with the example itself. */
  readonly accessExamples?: boolean
  /** Tell the progress observer. */
  readonly displayProgress?: boolean
  readonly title?: string
}

/** A program, and what to call it with: an example, a record of inputs, or a list of arguments. */
export type ParallelCall<M extends Module = Module> = readonly [module: M, inputs: object]

export interface ParallelFailure {
  /** Which call failed. */
  readonly index: number
  readonly inputs: object
  readonly error: Error
}

type Answer<M extends Module> = Awaited<ReturnType<M['forward']>> | null

/**
 * @example
 * const answers = await new dspy.Parallel({ numThreads: 4 }).call(questions.map((question) => [qa, { question }]))
 */
export class Parallel {
  readonly options: ParallelOptions
  /** What failed in the latest `call`; their answers are null. */
  failures: readonly ParallelFailure[] = []

  constructor(options: ParallelOptions = {}) {
    for (const key of ['numThreads', 'maxErrors'] as const) {
      const value = options[key]
      if (value !== undefined && !(value > 0)) throw new OptionError(`${key} must be 1 or more, but it is ${value}.`)
    }
    this.options = options
  }

  /** @throws ArborError when `maxErrors` calls failed; the signal's reason when aborted */
  async call<M extends Module>(calls: readonly ParallelCall<M>[], options: ParallelOptions = {}): Promise<Answer<M>[]> {
    const run = new Run<M>(calls, { ...this.options, ...options })
    this.failures = run.failures
    return run.all()
  }
}

class Run<M extends Module> {
  readonly failures: ParallelFailure[] = []
  readonly #answers: Answer<M>[]
  readonly #stop = new AbortController()
  readonly #id = newActivityId('parallel')
  #next = 0
  #done = 0

  constructor(
    readonly calls: readonly ParallelCall<M>[],
    readonly options: ParallelOptions,
  ) {
    this.#answers = calls.map(() => null)
  }

  async all(): Promise<Answer<M>[]> {
    const { signal, numThreads } = currentSettings()
    const abort = () => this.#stop.abort(signal?.reason)
    if (signal?.aborted) abort()
    signal?.addEventListener('abort', abort, { once: true })
    const workers = Math.max(1, Math.min(this.options.numThreads ?? numThreads, this.calls.length))
    this.#report('start')
    try {
      await context({ signal: this.#stop.signal }, () => Promise.all(Array.from({ length: workers }, () => this.#work())))
      this.#stop.signal.throwIfAborted()
      return this.#answers
    } finally {
      this.#report('end')
      signal?.removeEventListener('abort', abort)
    }
  }

  async #work(): Promise<void> {
    while (this.#next < this.calls.length && !this.#stop.signal.aborted) {
      const index = this.#next++
      try {
        this.#answers[index] = await this.#one(this.calls[index]!)
      } catch (error) {
        if (this.#stop.signal.aborted) return
        this.#fail(index, error instanceof Error ? error : new Error(String(error)))
      }
      this.#done++
      this.#report('item')
    }
  }

  async #one([module, inputs]: ParallelCall<M>): Promise<Answer<M>> {
    const { accessExamples = true } = this.options
    const args = Array.isArray(inputs)
      ? inputs
      : [inputs instanceof Example && accessExamples ? inputs.inputs().toDict() : inputs]
    return (await module.call(...(args as unknown as Parameters<M['forward']>))) as Answer<M>
  }

  #fail(index: number, error: Error): void {
    this.failures.push({ index, inputs: this.calls[index]![1], error })
    const { maxErrors, onWarning } = currentSettings()
    const limit = this.options.maxErrors ?? maxErrors
    if (this.failures.length < limit) {
      onWarning?.(`Parallel: call ${index} failed, and its answer is null: ${error.name}: ${error.message}`)
      return
    }
    const text = `Execution cancelled: ${this.failures.length} of ${this.#done + 1} calls failed (maxErrors is ${limit}). The last: ${error.name}: ${error.message}`
    this.#stop.abort(new ArborError(text, { code: 'too_many_errors', cause: error }))
  }

  #report(phase: 'start' | 'item' | 'end'): void {
    if (!this.options.displayProgress) return
    const { title = 'Parallel' } = this.options
    const note = this.failures.length > 0 ? `${this.failures.length} failed` : ''
    reportProgress({ kind: `parallel:${phase}`, id: this.#id, title, done: this.#done, total: this.calls.length, note })
  }
}
