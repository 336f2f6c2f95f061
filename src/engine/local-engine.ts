// The engine in this process: one model on one device, its policies, rollouts by continuous batching, and updates.
// Calls take effect in the order they are made. Generations overlap; everything else waits until those made before it have ended,
// and generations made after it wait for it, so no completion ever sees two versions of a policy.

import { setImmediate as turn } from 'node:timers/promises'
import { ArborError } from '../errors'
import { CallQueue } from './call-queue'
import { checkRequest } from './check-request'
import { collectGarbage } from './collect-garbage'
import type {
  Completion,
  EngineStatus,
  GenerateControl,
  GenerateRequest,
  ModelInfo,
  ModelSource,
  PolicySpec,
  StepConfig,
  TokenStats,
  TrainLoss,
  TrainSequence,
  TrainStats,
} from './engine'
import { closeModel, type LoadedModel, loadModel } from './loaded-model'
import { sequenceLogits } from './logits'
import { explainMemory, type MemoryFacts } from './memory-use'
import { openModel } from './open-model'
import { OpenPolicies } from './open-policies'
import { type Device, openBackend } from './ops/open-backend'
import type { Backend, GroupPlace } from './ops/ops'
import { openFrozen, openWeights, type PolicyBase, saveWeights } from './policy-file'
import type { PolicyWeights } from './policy-weights'
import type { PartWork, PoolMember } from './pool-member'
import { type PrecisionWish, precisionFor } from './precision'
import type { Scheduler } from './scheduler'
import type { Trainer } from './trainer'
import type { OpenModel } from './weights'

export interface LocalEngineOptions {
  /** A backend that is open already, or the name of one to open with the model. The engine closes it. */
  readonly backend?: Backend
  readonly device?: Device
  /** Which of several GPUs; default 0. */
  readonly index?: number
  /** Of frozen weights; default: bf16 on a GPU and where the CPU computes in it, unless ARBOR_PRECISION says otherwise. */
  readonly precision?: PrecisionWish
  /** Tokens whose keys and values the cache holds; default half a GiB's worth. */
  readonly kvCacheTokens?: number
  /** Bytes the whole process should stay within while it trains, as far as that is possible; default 1.5 GiB. Less means smaller packs. */
  readonly memory?: number
  /** Rows of one forward pass. */
  readonly batchTokens?: number
  /** Completions decoded together. */
  readonly batchSequences?: number
  /** Instead of `openModel`: weights that lie in no file, as a benchmark's. */
  readonly open?: (source: ModelSource) => Promise<OpenModel>
}

export class LocalEngine implements PoolMember {
  #loaded: LoadedModel | null = null
  /** Known as soon as it takes memory. */
  #facts: MemoryFacts | null = null
  #closed = false
  #pump: Promise<void> | null = null
  #busyMilliseconds = 0
  #busySince: number | null = null
  #trainedTokens = 0
  readonly #policies = new OpenPolicies()
  readonly #calls = new CallQueue()

  constructor(private readonly options: LocalEngineOptions = {}) {}

  load(source: ModelSource): Promise<ModelInfo> {
    return this.#exclusive(async () => {
      const open = await (this.options.open ?? openModel)(source)
      try {
        return await this.#load(open, source)
      } finally {
        open.weights.close()
        collectGarbage()
      }
    })
  }

  openPolicy(name: string, spec: PolicySpec): Promise<{ policyVersion: number; parameters: number }> {
    return this.#open(name, (base) => openWeights(base, spec))
  }

  openSaved(name: string, dir: string): Promise<{ policyVersion: number; parameters: number }> {
    return this.#open(name, async (base) => openFrozen(base, dir))
  }

  /** Completions of one prompt. When the signal aborts, those not finished come back as they are, with finishReason 'abort'. */
  generate(request: GenerateRequest, control?: GenerateControl): Promise<Completion[]> {
    return this.#calls.shared(async () => {
      const { model, scheduler } = this.#ready()
      const maxNewTokens = checkRequest(request, model.config)
      const weights = request.policy === null ? null : this.#policies.get(request.policy)
      const policy = { policyVersion: weights?.policyVersion ?? 0, weightSet: weights?.own ? request.policy : null }
      const completions = scheduler.add({ ...request, maxNewTokens }, { ...policy, ...(control && { control }) })
      this.#pump ??= this.#run(scheduler)
      return completions
    })
  }

  logprobs(
    policy: string | null,
    sequences: readonly TrainSequence[],
    options: { temperature: number; packTokens?: number },
  ): Promise<TokenStats[]> {
    return this.#exclusive(async () => {
      const { trainer } = this.#ready()
      return this.#timed(() => trainer.logprobs(policy === null ? null : this.#policies.get(policy), sequences, options))
    })
  }

  /** All logits [tokens, vocab] of a sequence under a policy, null = base: what models are compared by. */
  logits(policy: string | null, tokens: readonly number[]): Promise<Float32Array> {
    return this.#exclusive(async () => {
      const { backend, model } = this.#ready()
      return sequenceLogits(backend, model, { tokens, weights: policy === null ? null : this.#policies.get(policy) })
    })
  }

  trainStep(policy: string, sequences: readonly TrainSequence[], loss: TrainLoss, config: StepConfig): Promise<TrainStats> {
    return this.#train(policy, (trainer, weights) => trainer.trainStep(weights, sequences, loss, config))
  }

  trainPart(policy: string, sequences: readonly TrainSequence[], loss: TrainLoss, work: PartWork): Promise<TrainStats> {
    return this.#train(policy, (trainer, weights) => trainer.trainPart(weights, sequences, loss, work))
  }

  groupId(): Promise<Uint8Array> {
    return this.#exclusive(async () => this.#ready().backend.group.id())
  }

  joinGroup(place: GroupPlace): Promise<void> {
    return this.#exclusive(() => this.#ready().backend.group.join(place))
  }

  async leaveGroup(): Promise<void> {
    this.#loaded?.backend.group.leave()
  }

  savePolicy(name: string, dir: string): Promise<void> {
    return this.#exclusive(async () => saveWeights(this.#policies.trainable(name), dir, this.#ready().source))
  }

  closePolicy(name: string): Promise<void> {
    return this.#exclusive(async () => {
      const weights = this.#policies.remove(name)
      this.#ready().scheduler.cache.forget(name)
      weights.close()
    })
  }

  async status(): Promise<EngineStatus> {
    const { running = 0, waiting = 0, cache, counters } = this.#loaded?.scheduler ?? {}
    const policies = this.#policies.status
    const underWay = this.#busySince === null ? 0 : performance.now() - this.#busySince
    const busySeconds = (this.#busyMilliseconds + underWay) / 1000
    const { prefillTokens: promptTokens = 0, sampledTokens = 0 } = counters ?? {}
    const work = { promptTokens, sampledTokens, trainedTokens: this.#trainedTokens }
    const deviceMemory = this.#loaded?.backend.memory() ?? null
    const policiesAtOnce = counters?.policiesAtOnce ?? 0
    const cachedTokens = cache?.cachedTokens ?? 0
    return { running, waiting, cachedTokens, busySeconds, work, deviceMemory, policies, policiesAtOnce }
  }

  /** Ends generations in flight with an error, waits for the call that runs, frees the device. A second call does nothing. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#loaded?.scheduler.fail(new ArborError('The engine was closed.', { code: 'engine_closed' }))
    await this.#calls.exclusive(async () => {
      await this.#pump // the step in flight
      const loaded = this.#loaded
      this.#loaded = null
      this.#policies.closeAll()
      if (loaded) closeModel(loaded)
      ;(loaded?.backend ?? this.options.backend)?.close()
    })
  }

  #train(policy: string, update: (trainer: Trainer, weights: PolicyWeights) => Promise<TrainStats>): Promise<TrainStats> {
    return this.#exclusive(async () => {
      const { trainer, scheduler } = this.#ready()
      const weights = this.#policies.trainable(policy)
      try {
        const stats = await this.#timed(() => update(trainer, weights))
        this.#trainedTokens += stats.tokens
        return stats
      } finally {
        scheduler.cache.forget(policy)
      }
    })
  }

  #open(
    name: string,
    open: (base: PolicyBase) => Promise<PolicyWeights>,
  ): Promise<{ policyVersion: number; parameters: number }> {
    return this.#exclusive(async () => {
      const { backend, model, source } = this.#ready()
      const weights = await this.#policies.open(name, () => open({ backend, config: model.config, source }))
      return { policyVersion: weights.policyVersion, parameters: weights.parameters }
    })
  }

  async #load(open: OpenModel, source: ModelSource): Promise<ModelInfo> {
    if (this.#loaded)
      throw new ArborError(`${this.#loaded.info.name} is loaded; an engine holds one model. Start another for ${source.name}.`)
    const backend = this.options.backend ?? (await this.#openBackend(open))
    try {
      this.#loaded = loadModel(backend, open, {
        source,
        wishes: this.options,
        policies: (policy) => this.#policies.get(policy),
        onFacts: (facts) => {
          this.#facts = facts
        },
      })
      return this.#loaded.info
    } catch (error) {
      if (!this.options.backend) backend.close()
      throw error
    }
  }

  #openBackend({ config }: OpenModel): Promise<Backend> {
    const { device = 'auto', precision = 'auto', index = 0 } = this.options
    return openBackend(device, { precision: precisionFor(config, precision), index })
  }

  /** Steps while anybody waits for a token. Between steps the event loop turns, so new requests join and aborts arrive. */
  async #run(scheduler: Scheduler): Promise<void> {
    try {
      await turn() // requests made at the same moment share the first batch
      while (scheduler.busy) {
        await this.#timed(() => scheduler.step())
        await turn()
      }
    } catch (error) {
      scheduler.fail(this.#explained(error))
    } finally {
      this.#pump = null
    }
  }

  async #timed<Result>(work: () => Promise<Result>): Promise<Result> {
    const started = performance.now()
    this.#busySince = started
    try {
      return await work()
    } finally {
      this.#busyMilliseconds += performance.now() - started
      this.#busySince = null
    }
  }

  #exclusive<Result>(task: () => Promise<Result>): Promise<Result> {
    return this.#calls.exclusive(async () => {
      this.#checkOpen()
      try {
        return await task()
      } catch (error) {
        throw this.#explained(error)
      }
    })
  }

  /** Where memory ran out, the error says what takes how much. */
  #explained(error: unknown): unknown {
    return explainMemory(error, this.#facts && { ...this.#facts, policies: this.#policies.all() })
  }

  #ready(): LoadedModel {
    this.#checkOpen()
    if (!this.#loaded) throw new ArborError('No model is loaded yet. Call load() first.')
    return this.#loaded
  }

  #checkOpen(): void {
    if (this.#closed) throw new ArborError('The engine was closed.', { code: 'engine_closed' })
  }
}
