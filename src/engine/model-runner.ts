// Runs a batch plan on the device: uploads it, one forward pass, logits of the sampled rows, one token each. All that differs between
// passes of one shape is uploaded, so the ops of a shape that comes again are enqueued as one capture.

import { type Batch, type KvStore, type LiveRows, liveSegments } from './batch'
import type { BatchPlan } from './batch-plan'
import { CaptureCache, type PassShape } from './capture-cache'
import { type InferenceLimits, inputBytes, scratchBytes, slotBytes } from './inference-plan'
import type { Model } from './model'
import type { Arena, Backend, Tensor } from './ops/ops'
import { PassInputs, type PassViews } from './pass-inputs'
import type { PolicyWeights } from './policy-weights'
import type { TokenMask } from './sampling'
import type { Runner } from './scheduler'
import type { Sequence, SequenceToken, TokenAlternative } from './sequence'

/**
 * Rows of prompts that keep a GPU longer busy than they take to be enqueued: nothing runs while a pass is recorded (9 ms of one that takes 13), a replay
 * saves little, and prompts of as many rows seldom come again.
 */
const MANY_ROWS = 512

export class ModelRunner implements Runner {
  readonly #inputs: PassInputs
  #kv: readonly KvStore[] = []
  #kvSlots = 0
  #kvMemory: Arena | null = null
  /** What lives within one pass. */
  readonly #scratch: Arena
  readonly #memory: Arena
  readonly #slots: number
  readonly #captures: CaptureCache
  /** Whose adapters lie beside the base's weights, and after how many updates. */
  #laid: readonly { readonly weights: PolicyWeights; readonly step: number }[] = []

  constructor(
    private readonly backend: Backend,
    private readonly model: Model,
    options: { limits: InferenceLimits; policies: (policy: string) => PolicyWeights },
  ) {
    const { config } = model
    this.policies = options.policies
    this.#memory = backend.arena(inputBytes(config, options.limits))
    this.#slots = options.limits.slots
    this.#captures = new CaptureCache(backend)
    this.#growKv(options.limits.roomySlots)
    this.#inputs = new PassInputs(backend, this.#memory, { limits: options.limits, model })
    this.#scratch = backend.arena(scratchBytes(config, options.limits, backend.activations))
  }

  private readonly policies: (policy: string) => PolicyWeights

  run(plan: BatchPlan): () => Promise<SequenceToken[]> {
    const { backend } = this
    const { sampled } = plan
    const watched = sampled.some((sequence) => sequence.watched)
    // Asked before the pass is enqueued, so that the answers come while the device computes.
    const masks = watched ? sampled.map((sequence) => sequence.allowed?.() ?? null) : []
    if (plan.highestSlot >= this.#kvSlots) this.#growKv(Math.max(plan.highestSlot + 1, 2 * this.#kvSlots))
    const views = this.#inputs.upload(plan)
    const live = plan.liveStart === 0 ? null : this.#uploadLive(plan)
    const { history, allowed } = this.#inputs
    const sample = () => backend.ops.sample({ ...views.sampling, history, allowed })
    this.#layAdapters(plan)
    this.#captures.run(this.#shape(plan, watched), () => {
      if (plan.ahead) this.#feed(views)
      this.#forward(this.#batch(plan, views, live), views)
      if (sampled.length > 0 && !watched) sample()
    })
    if (sampled.length === 0) return async () => [] // part of a long prompt
    if (!watched) return this.#inputs.fetch(views, sampled.length)
    return async () => {
      const alternatives = await this.#alternatives(sampled, views.sampling.logits)
      await this.#uploadMasks(masks)
      sample()
      const tokens = await this.#inputs.fetch(views, sampled.length)()
      return tokens.map((token, i) => (alternatives[i] ? { ...token, topLogprobs: alternatives[i] } : token))
    }
  }

  /** Whether a pass may be enqueued before the one before it has been heard of: a device computes beside us. */
  get runsAhead(): boolean {
    return this.backend.device === 'cuda'
  }

  /** Passes that were replayed, and how often a shape was recorded. */
  get captures(): { readonly recorded: number; readonly replayed: number } {
    return this.#captures.counters
  }

  close(): void {
    this.#captures.clear()
    this.#scratch.close()
    this.#kvMemory?.close()
    this.#inputs.close()
    this.#memory.close()
  }

  /** Stores of as many slots as are in use: what lies in them moves along. */
  #growKv(wanted: number): void {
    const { config } = this.model
    const slots = Math.min(wanted, this.#slots)
    const memory = this.backend.arena(slots * slotBytes(config, this.backend.activations) + 64 * 2 * config.layers)
    const grown = this.model.kvStores(slots, memory)
    for (const [l, { k, v }] of this.#kv.entries())
      for (const [to, from] of [[grown[l]!.k, k] as const, [grown[l]!.v, v] as const])
        this.backend.ops.copy(to.rows(0, this.#kvSlots), from)
    this.#captures.clear() // they hold the old stores' addresses
    this.#kvMemory?.close()
    this.#kv = grown
    this.#kvSlots = slots
    this.#kvMemory = memory
  }

  /** The tokens that the device sampled last become this pass's, without a way through the host. */
  #feed({ ids, fed }: PassViews): void {
    this.backend.ops.gatherRows({ out: fed, from: this.#inputs.latest, rows: ids })
  }

  #batch(plan: BatchPlan, { ids, fed, positions, slots, segments }: PassViews, live: LiveRows | null): Batch {
    const { rows: tokens, segmentCount, policies, decode, ahead } = plan
    const attention = { segments, context: this.#inputs.context, segmentCount }
    return { tokens, ids: ahead ? fed : ids, positions, slots, plan: attention, policies, decode, ...(live && { live }) }
  }

  /** A pass ahead decodes under the adapters of the pass before it, which lie beside the weights already, unless that one read prompts. */
  #layAdapters({ decode, ahead, policies }: BatchPlan): void {
    if (!this.#laysAdapters(decode, policies)) return void (this.#laid = [])
    const now = policies.map(({ policy }) => this.policies(policy)).map((weights) => ({ weights, step: weights.step }))
    const before = this.#laid
    this.#laid = now
    const same =
      now.length === before.length &&
      now.every(({ weights, step }, i) => weights === before[i]!.weights && step === before[i]!.step)
    if (!ahead || !same) this.model.layAdapters(policies, this.policies)
  }

  /** Only a device that computes beside us gains by it, and own weights are trained: there is no room beside them. */
  #laysAdapters(decode: boolean, policies: Batch['policies']): boolean {
    return decode && this.runsAhead && this.#ownModel(policies) === null
  }

  /** The scheduler puts rows of one set of weights into a pass, so the first policy's are everybody's. */
  #ownModel(policies: Batch['policies']): PolicyWeights['own'] {
    return policies.length > 0 ? this.policies(policies[0]!.policy).own : null
  }

  /** Hidden states of the batch and the logits of its sampled rows, if any. */
  #forward(batch: Batch, { sampleRows, sampled, sampling: { logits } }: PassViews): void {
    this.#scratch.reset()
    const own = this.#ownModel(batch.policies)
    const laid = this.#laysAdapters(batch.decode === true, batch.policies)
    const options = { arena: this.#scratch, loras: this.policies, laid, ...(own && { weights: own.weights }) }
    const hidden = this.model.forward(batch, this.#kv, options)
    if (sampled.shape[0] === 0) return
    this.backend.ops.gatherRows({ out: sampled, from: hidden, rows: sampleRows })
    this.model.logits(sampled, logits, own?.weights.head)
  }

  /** Passes of equal shape enqueue the same ops on the same memory. A policy that was closed and opened again is another one. */
  #shape(
    { decode, ahead, rows, segmentCount, liveStart, liveSegment, samples, policies }: BatchPlan,
    watched: boolean,
  ): PassShape {
    const kind = (decode ? 1 : 0) + (ahead ? 2 : 0) + (watched ? 4 : 0)
    let sizes = `${kind},${rows},${segmentCount},${liveStart},${liveSegment},${samples}`
    for (const { rowStart, rowCount } of policies) sizes += `,${rowStart},${rowCount}`
    const recordedAt = this.runsAhead && !decode && rows > MANY_ROWS ? 4 : 2
    return { sizes, weights: policies.map(({ policy }) => this.policies(policy)), recordedAt }
  }

  /** The rows that are sampled from, their segments counted from the first of them. */
  #uploadLive({ liveStart: start, segmentCount, segments: all }: BatchPlan): LiveRows {
    const own = liveSegments(all.subarray(0, 4 * segmentCount), start)
    const { liveSegments: segments, context } = this.#inputs
    this.backend.upload(segments.rows(0, own.length / 4), own)
    return { start, plan: { segments, context, segmentCount: own.length / 4 } }
  }

  /** Row i of the masks belongs to sample i. */
  async #uploadMasks(masks: readonly (Promise<TokenMask | null> | null)[]): Promise<void> {
    for (const [i, promise] of masks.entries()) {
      if (!promise) continue
      const row = this.#inputs.allowed.rows(i, 1)
      const words = row.shape[1]!
      const mask = (await promise) ?? new Int32Array(words).fill(-1)
      this.backend.upload(row, mask.length === words ? mask : resized(mask, words))
    }
  }

  /** The most likely tokens of the rows that asked for them; the logits are read before `sample` may overwrite them. */
  async #alternatives(sampled: readonly Sequence[], logits: Tensor): Promise<(TokenAlternative[] | undefined)[]> {
    const answers: (TokenAlternative[] | undefined)[] = []
    for (const [i, { topLogprobs: count }] of sampled.entries()) {
      if (count > 0) answers[i] = mostLikely((await this.backend.download(logits.rows(i, 1))) as Float32Array, count)
    }
    return answers
  }
}

/** The `count` largest of log-softmax(logits), best first; equal ones by token id. */
export function mostLikely(logits: Float32Array, count: number): TokenAlternative[] {
  const best: number[] = []
  for (let token = 0; token < logits.length; token++) {
    if (best.length === count && logits[token]! <= logits[best.at(-1)!]!) continue
    let place = best.length
    while (place > 0 && logits[token]! > logits[best[place - 1]!]!) place--
    best.splice(place, 0, token)
    if (best.length > count) best.pop()
  }
  const top = logits[best[0]!]!
  let sum = 0
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i]! - top)
  const lse = top + Math.log(sum)
  return best.map((token) => ({ token, logprob: logits[token]! - lse }))
}

/** A mask made for another size of the vocabulary (some models have rows that no token uses): what it doesn't say may not come. */
function resized(mask: TokenMask, words: number): TokenMask {
  const whole = new Int32Array(words)
  whole.set(mask.subarray(0, words))
  return whole
}
