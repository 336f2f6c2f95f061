// The thread a LocalEngine lives in: receives calls, answers with results, so that the server's event loop never waits for a step.

import { parentPort, workerData } from 'node:worker_threads'
import type { Engine, GenerateControl, GenerateRequest, LinearLoss, LossGradient, StepConfig, TrainSequence } from './engine'
import { LocalEngine, type LocalEngineOptions } from './local-engine'
import { type FromWorker, type ToWorker, toErrorData } from './worker-protocol'

type Gradient = Awaited<ReturnType<LossGradient>>

/** What a running call hears from the other side. */
interface CallState {
  readonly abort: AbortController
  readonly stopped: Set<number> // completions that shall end
  gradient?: { resolve(gradient: Gradient): void; reject(error: Error): void }
}

/** Serves one engine over a port. */
export class EngineHost {
  readonly #calls = new Map<number, CallState>()

  constructor(
    private readonly engine: Engine,
    private readonly send: (message: FromWorker) => void,
  ) {}

  async receive(message: ToWorker): Promise<void> {
    switch (message.type) {
      case 'call':
        return this.#call(message)
      case 'abort':
        return this.#calls.get(message.id)?.abort.abort()
      case 'stop':
        this.#calls.get(message.id)?.stopped.add(message.index)
        return
      case 'gradient':
        return this.#calls.get(message.id)?.gradient?.resolve(message)
      case 'loss-failed':
        return this.#calls.get(message.id)?.gradient?.reject(new Error(message.message))
      case 'close':
        await this.engine.close()
        return this.send({ type: 'closed' })
    }
  }

  async #call({ id, method, args }: Extract<ToWorker, { type: 'call' }>): Promise<void> {
    const state: CallState = { abort: new AbortController(), stopped: new Set() }
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
      const [request, watched] = args as [GenerateRequest, boolean]
      return this.engine.generate(request, this.#control(id, state, watched))
    }
    if (method === 'trainStep') {
      const [policy, sequences, config, linear] = args as [string, TrainSequence[], StepConfig, LinearLoss?]
      return this.engine.trainStep(policy, sequences, linear ?? this.#loss(id, state), config)
    }
    const target = this.engine as unknown as Record<string, (...args: readonly unknown[]) => Promise<unknown>>
    return target[method]!(...args)
  }

  /** The other side's signal and, if it listens, its onTokens: its 'stop' comes a few tokens late. */
  #control(id: number, state: CallState, watched: boolean): GenerateControl {
    if (!watched) return { signal: state.abort.signal }
    const sent: number[] = [] // tokens sent so far, per completion
    const onTokens = (index: number, tokens: readonly number[]) => {
      this.send({ type: 'tokens', id, index, tokens: tokens.slice(sent[index] ?? 0) })
      sent[index] = tokens.length
      return state.stopped.has(index) ? ('stop' as const) : undefined
    }
    return { signal: state.abort.signal, onTokens }
  }

  /** The loss is a function on the other side: its arguments go there, the gradient comes back. */
  #loss(id: number, state: CallState): LossGradient {
    return (logprobs, entropies) =>
      new Promise((resolve, reject) => {
        state.gradient = { resolve, reject }
        this.send({ type: 'loss', id, logprobs, entropies })
      })
  }
}

if (parentPort) {
  const port = parentPort
  const host = new EngineHost(new LocalEngine(workerData as LocalEngineOptions), (message) => port.postMessage(message))
  port.on('message', (message: ToWorker) => void host.receive(message))
}
