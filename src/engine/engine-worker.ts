// The thread a LocalEngine lives in: receives calls, answers with results, so that the server's event loop never waits for a step.

import { parentPort, workerData } from 'node:worker_threads'
import type { GenerateControl, GenerateRequest, LinearLoss, LossGradient, StepConfig, TrainSequence } from './engine'
import { LocalEngine, type LocalEngineOptions } from './local-engine'
import type { Gradients, PoolMember, StepPart } from './pool-member'
import { type CallMessage, type FromWorker, type HeardBy, type ToWorker, toErrorData } from './worker-protocol'

type Gradient = Awaited<ReturnType<LossGradient>>

/** A question that went to the other side. */
interface Asked<Answer> {
  resolve(answer: Answer): void
  reject(error: Error): void
}

/** What a running call hears from the other side. */
interface CallState {
  readonly abort: AbortController
  readonly stopped: Set<number> // completions that shall end
  readonly masks: Map<number, (mask: Int32Array | null) => void> // who waits for allowed tokens, by completion
  gradient?: Asked<Gradient>
  sum?: Asked<Gradients | null>
}

/** Serves one engine over a port. */
export class EngineHost {
  readonly #calls = new Map<number, CallState>()

  constructor(
    private readonly engine: PoolMember,
    private readonly send: (message: FromWorker) => void,
  ) {}

  async receive(message: ToWorker): Promise<void> {
    switch (message.type) {
      case 'call':
        return this.#call(message)
      case 'calls':
        return void (await Promise.all(message.calls.map((call) => this.#call(call))))
      case 'abort':
        return this.#abort(this.#calls.get(message.id))
      case 'stop':
        this.#calls.get(message.id)?.stopped.add(message.index)
        return
      case 'gradient':
        return this.#calls.get(message.id)?.gradient?.resolve(message)
      case 'loss-failed':
        return this.#calls.get(message.id)?.gradient?.reject(new Error(message.message))
      case 'allowed':
        return this.#calls.get(message.id)?.masks.get(message.index)?.(message.mask)
      case 'summed':
        return this.#calls.get(message.id)?.sum?.resolve(message.total)
      case 'sum-failed':
        return this.#calls.get(message.id)?.sum?.reject(new Error(message.message))
      case 'close':
        for (const state of this.#calls.values()) this.#abort(state)
        await this.engine.close()
        return this.send({ type: 'closed' })
    }
  }

  async #call({ id, method, args }: CallMessage): Promise<void> {
    const state: CallState = { abort: new AbortController(), stopped: new Set(), masks: new Map() }
    this.#calls.set(id, state)
    try {
      this.send({ type: 'result', id, value: await this.#run(id, method, { args, state }) })
    } catch (error) {
      this.send({ type: 'error', id, error: toErrorData(error) })
    } finally {
      this.#calls.delete(id)
    }
  }

  #run(id: number, method: string, { args, state }: { args: readonly unknown[]; state: CallState }): Promise<unknown> {
    if (method === 'generate') {
      const [request, heard] = args as [GenerateRequest, HeardBy]
      return this.engine.generate(request, this.#control(id, state, heard))
    }
    if (method === 'trainStep' || method === 'trainPart') {
      const [policy, sequences, config, linear] = args as [string, TrainSequence[], StepConfig, LinearLoss?]
      const loss = linear ?? this.#loss(id, state)
      if (method === 'trainStep') return this.engine.trainStep(policy, sequences, loss, config)
      return this.engine.trainPart(policy, sequences, loss, { config, part: this.#part(id, state) })
    }
    const target = this.engine as unknown as Record<string, (...args: readonly unknown[]) => Promise<unknown>>
    return target[method]!(...args)
  }

  /** Ends a call; nobody waits for masks any longer, the other side may be gone. */
  #abort(state: CallState | undefined): void {
    state?.abort.abort()
    for (const answer of state?.masks.values() ?? []) answer(null)
  }

  /** The other side's signal and, if it listens, its onTokens (whose 'stop' comes a few tokens late) and allowedTokens. */
  #control(id: number, state: CallState, heard: HeardBy): GenerateControl {
    if (!heard.onTokens && !heard.allowedTokens) return { signal: state.abort.signal }
    const sent: number[] = [] // tokens sent so far, per completion
    const onTokens = (index: number, tokens: readonly number[]) => {
      this.send({ type: 'tokens', id, index, tokens: tokens.slice(sent[index] ?? 0) })
      sent[index] = tokens.length
      return state.stopped.has(index) ? ('stop' as const) : undefined
    }
    const allowedTokens = (index: number) =>
      new Promise<Int32Array | null>((resolve) => {
        if (state.abort.signal.aborted) return resolve(null)
        state.masks.set(index, resolve)
        this.send({ type: 'mask', id, index })
      })
    return { signal: state.abort.signal, onTokens, ...(heard.allowedTokens && { allowedTokens }) }
  }

  /** The loss is a function on the other side: its arguments go there, the gradient comes back. */
  #loss(id: number, state: CallState): LossGradient {
    return (logprobs, entropies) =>
      new Promise((resolve, reject) => {
        state.gradient = { resolve, reject }
        this.send({ type: 'loss', id, logprobs, entropies })
      })
  }

  /** So is whoever sums the parts of a step. */
  #part(id: number, state: CallState): StepPart {
    return {
      sum: (own) =>
        new Promise((resolve, reject) => {
          state.sum = { resolve, reject }
          this.send({ type: 'gradients', id, own })
        }),
    }
  }
}

if (parentPort) {
  const port = parentPort
  const host = new EngineHost(new LocalEngine(workerData as LocalEngineOptions), (message) => port.postMessage(message))
  port.on('message', (message: ToWorker) => void host.receive(message))
}
