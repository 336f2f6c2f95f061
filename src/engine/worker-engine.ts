// An engine in a thread of its own, with the same interface. The loss and the callbacks run here; data crosses by message.

import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { SHARE_ENV, Worker } from 'node:worker_threads'
import { ArborError, BackendError } from '../errors'
import type {
  Completion,
  EngineStatus,
  GenerateControl,
  GenerateRequest,
  LossGradient,
  ModelInfo,
  ModelSource,
  PolicySpec,
  StepConfig,
  TokenStats,
  TrainLoss,
  TrainSequence,
  TrainStats,
} from './engine'
import { GatheredCalls } from './gathered-calls'
import type { LocalEngineOptions } from './local-engine'
import type { GroupPlace } from './ops/ops'
import type { PartWork, PoolMember, StepPart } from './pool-member'
import {
  type CallMessage,
  type EngineMethod,
  type FromWorker,
  fromErrorData,
  type HeardBy,
  type ToWorker,
} from './worker-protocol'

/** What LocalEngine takes, without what can't travel to a thread. */
export type WorkerEngineOptions = Omit<LocalEngineOptions, 'backend' | 'open'>

interface Pending {
  resolve(value: unknown): void
  reject(error: unknown): void
  readonly loss?: LossGradient
  readonly part?: StepPart
  readonly onTokens?: GenerateControl['onTokens']
  readonly allowedTokens?: GenerateControl['allowedTokens']
  readonly tokens: number[][] // so far, per completion
}

export class WorkerEngine implements PoolMember {
  private readonly thread: Worker
  readonly #pending = new Map<number, Pending>()
  /** Generations: what is asked at one moment shares its first passes. */
  readonly #gathered = new GatheredCalls<CallMessage>((calls) => this.#sendTogether(calls))
  #nextId = 1
  #ended: Error | null = null
  #closing: Promise<void> | null = null
  #onClosed: (() => void) | null = null

  constructor(options: WorkerEngineOptions = {}) {
    // Shared: native code reads the process's environment, and a copy's changes (where cuBLAS lies) would not reach it.
    this.thread = new Worker(workerPath(), { workerData: options, env: SHARE_ENV })
    this.thread.on('message', (message: FromWorker) => void this.#receive(message))
    this.thread.on('error', (cause) => this.#end(`The engine's thread failed: ${cause.message}`, cause))
    this.thread.on('exit', (code) => this.#end(`The engine's thread ended with code ${code}.`))
  }

  load(model: ModelSource): Promise<ModelInfo> {
    return this.#call('load', [model])
  }

  openPolicy(name: string, spec: PolicySpec): Promise<{ policyVersion: number; parameters: number }> {
    return this.#call('openPolicy', [name, spec])
  }

  openSaved(name: string, dir: string): Promise<{ policyVersion: number; parameters: number }> {
    return this.#call('openSaved', [name, dir])
  }

  async generate(request: GenerateRequest, { signal, ...callbacks }: GenerateControl = {}): Promise<Completion[]> {
    const id = this.#nextId
    const heard: HeardBy = { onTokens: !!callbacks.onTokens, allowedTokens: !!callbacks.allowedTokens }
    const result = this.#call<Completion[]>('generate', [request, heard], callbacks)
    const abort = () => this.#send({ type: 'abort', id })
    if (signal?.aborted) abort()
    signal?.addEventListener('abort', abort)
    return result.finally(() => signal?.removeEventListener('abort', abort))
  }

  logprobs(
    policy: string | null,
    sequences: readonly TrainSequence[],
    options: { temperature: number; packTokens?: number },
  ): Promise<TokenStats[]> {
    return this.#call('logprobs', [policy, sequences.map(plain), options])
  }

  trainStep(policy: string, sequences: readonly TrainSequence[], loss: TrainLoss, config: StepConfig): Promise<TrainStats> {
    return this.#train('trainStep', [policy, sequences.map(plain), config], loss)
  }

  trainPart(
    policy: string,
    sequences: readonly TrainSequence[],
    loss: TrainLoss,
    { config, part }: PartWork,
  ): Promise<TrainStats> {
    return this.#train('trainPart', [policy, sequences.map(plain), config], loss, { part })
  }

  groupId(): Promise<Uint8Array> {
    return this.#call('groupId', [])
  }

  joinGroup(place: GroupPlace): Promise<void> {
    return this.#call('joinGroup', [place])
  }

  leaveGroup(): Promise<void> {
    return this.#call('leaveGroup', [])
  }

  savePolicy(name: string, dir: string): Promise<void> {
    return this.#call('savePolicy', [name, dir])
  }

  closePolicy(name: string): Promise<void> {
    return this.#call('closePolicy', [name])
  }

  status(): Promise<EngineStatus> {
    return this.#call('status', [])
  }

  /** Closes the engine, then ends its thread. Calls still in flight reject. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    if (!this.#ended) {
      await new Promise<void>((resolve) => {
        this.#onClosed = resolve
        this.#send({ type: 'close' })
      })
      this.#end('The engine was closed.')
    }
    await this.thread.terminate()
  }

  #train(
    method: 'trainStep' | 'trainPart',
    args: readonly unknown[],
    loss: TrainLoss,
    callbacks: Pick<Pending, 'part'> = {},
  ): Promise<TrainStats> {
    if (typeof loss === 'function') return this.#call(method, args, { ...callbacks, loss })
    return this.#call(method, [...args, { dLogprobs: loss.dLogprobs }], callbacks)
  }

  #call<Result>(
    method: EngineMethod,
    args: readonly unknown[],
    callbacks: Pick<Pending, 'loss' | 'part' | 'onTokens' | 'allowedTokens'> = {},
  ): Promise<Result> {
    if (this.#ended) return Promise.reject(this.#ended)
    if (this.#closing) return Promise.reject(new ArborError('The engine was closed.', { code: 'engine_closed' }))
    const id = this.#nextId++
    return new Promise<Result>((resolve, reject) => {
      const message: CallMessage = { type: 'call', id, method, args }
      if (method === 'generate') this.#gathered.add(message)
      else this.#send(message) // first: it throws for data that can't be cloned
      this.#pending.set(id, { resolve: resolve as (value: unknown) => void, reject, ...callbacks, tokens: [] })
    })
  }

  async #receive(message: FromWorker): Promise<void> {
    if (message.type === 'closed') return this.#onClosed?.()
    const pending = this.#pending.get(message.id)
    if (!pending) return
    switch (message.type) {
      case 'result':
        this.#pending.delete(message.id)
        return pending.resolve(message.value)
      case 'error':
        this.#pending.delete(message.id)
        return pending.reject(fromErrorData(message.error))
      case 'tokens':
        return this.#hear(pending, message)
      case 'mask':
        return this.#answerMask(pending, message)
      case 'loss':
        return this.#answerLoss(pending, message)
      case 'gradients':
        return this.#answerGradients(pending, message)
    }
  }

  /** Gives onTokens what came. Its 'stop' travels back; its error ends the call. */
  #hear(pending: Pending, { id, index, tokens }: Extract<FromWorker, { type: 'tokens' }>): void {
    const all = (pending.tokens[index] ??= [])
    all.push(...tokens)
    try {
      if (pending.onTokens?.(index, all) === 'stop') this.#send({ type: 'stop', id, index })
    } catch (error) {
      this.#send({ type: 'abort', id })
      this.#fail(id, error)
    }
  }

  /** Asks allowedTokens. Its error ends the call. */
  async #answerMask(pending: Pending, { id, index }: Extract<FromWorker, { type: 'mask' }>): Promise<void> {
    try {
      const mask = await pending.allowedTokens!(index, pending.tokens[index] ?? [])
      this.#send({ type: 'allowed', id, index, mask })
    } catch (error) {
      this.#send({ type: 'abort', id })
      this.#fail(id, error)
    }
  }

  /** Runs the loss here. When it throws, the caller of trainStep gets that very error, and no update is made. */
  async #answerLoss(pending: Pending, { id, logprobs, entropies }: Extract<FromWorker, { type: 'loss' }>): Promise<void> {
    try {
      const { dLogprobs, dEntropies } = await pending.loss!(logprobs, entropies)
      this.#send({ type: 'gradient', id, dLogprobs, ...(dEntropies && { dEntropies }) })
    } catch (error) {
      this.#send({ type: 'loss-failed', id, message: String(error) })
      this.#fail(id, error)
    }
  }

  /** Without the sum there is no update; whoever called hears why. */
  async #answerGradients(pending: Pending, { id, own }: Extract<FromWorker, { type: 'gradients' }>): Promise<void> {
    try {
      this.#send({ type: 'summed', id, total: await pending.part!.sum(own) })
    } catch (error) {
      this.#send({ type: 'sum-failed', id, message: String(error) })
      this.#fail(id, error)
    }
  }

  /** Calls that wait to be sent go first: they were made before. */
  #send(message: ToWorker): void {
    this.#gathered.flush()
    this.#post(message)
  }

  /** Data that can't be cloned is its caller's error: the others' calls go one by one. */
  #sendTogether(calls: readonly CallMessage[]): void {
    try {
      this.#post({ type: 'calls', calls })
    } catch (error) {
      const [{ id }] = calls as [CallMessage]
      if (calls.length > 1) for (const call of calls) this.#sendTogether([call])
      else this.#fail(id, error)
    }
  }

  #fail(id: number, error: unknown): void {
    this.#pending.get(id)?.reject(error)
    this.#pending.delete(id)
  }

  #post(message: ToWorker): void {
    if (!this.#ended) this.thread.postMessage(message)
  }

  /** Nothing will come any more: all who wait hear it. */
  #end(message: string, cause?: unknown): void {
    if (this.#ended) return
    this.#ended = this.#closing
      ? new ArborError('The engine was closed.', { code: 'engine_closed' })
      : new BackendError(`${message} Start the server again; a run continues from its last checkpoint.`, { op: 'worker', cause })
    for (const { reject } of this.#pending.values()) reject(this.#ended)
    this.#pending.clear()
    this.#onClosed?.()
  }
}

/** Only what the engine reads: rows of a caller may carry more, and not all of it could be cloned. */
function plain({ prompt, completion }: TrainSequence): TrainSequence {
  return { prompt, completion }
}

const WORKER = join('dist', 'src', 'engine', 'engine-worker.js')

/** The compiled worker, found from the compiled file as from the TypeScript source: a thread can't start from TypeScript. */
export function workerPath(): string {
  for (let dir = __dirname; dir !== dirname(dir); dir = dirname(dir)) if (existsSync(join(dir, WORKER))) return join(dir, WORKER)
  throw new ArborError(`${WORKER} is missing above ${__dirname}. Run "npm run build" in the package's folder.`)
}
