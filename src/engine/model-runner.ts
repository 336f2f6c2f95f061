// Runs a batch plan on the device: uploads it, one forward pass, logits of the sampled rows, one token each. All that differs between
// passes of one shape is uploaded, so the ops of a shape that comes again are enqueued as one capture.

import { type Batch, type KvStore, type LiveRows, liveSegments } from './batch'
import type { BatchLimits, BatchPlan } from './batch-plan'
import { CaptureCache, type PassShape } from './capture-cache'
import type { Model } from './model'
import type { ModelConfig } from './model-config'
import { DTYPE_BYTES } from './ops/arena'
import type { Arena, Backend, Tensor } from './ops/ops'
import { PassInputs, type PassViews } from './pass-inputs'
import type { PolicyWeights } from './policy-weights'
import type { TokenMask } from './sampling'
import type { Runner } from './scheduler'
import type { Sequence, SequenceToken, TokenAlternative } from './sequence'

export interface InferenceLimits extends BatchLimits {
  /** Tokens whose keys and values fit into the cache. */
  readonly slots: number
  /** As many are used without a second thought; beyond, what is only cached makes way first. */
  readonly roomySlots: number
}

export interface InferenceWishes {
  readonly kvCacheTokens?: number
  readonly batchTokens?: number
  readonly batchSequences?: number
}

/** What a kind of device can afford. */
interface Budget {
  readonly kvBytes: number
  readonly roomyKvBytes: number
  readonly tokens: number
  readonly sequences: number
  /** For the logits of all sequences. */
  readonly logitBytes: number
}

const MIB = 1024 ** 2
const HOST: Budget = {
  kvBytes: 512 * MIB,
  roomyKvBytes: 128 * MIB,
  tokens: 1024,
  sequences: 64,
  logitBytes: Number.POSITIVE_INFINITY,
}
/** TensorFlow.js passes whole stores into its ops, so a large one costs at every step. */
const TFJS_SLOTS = 4096
/** Of a GPU's memory that is free once the weights are there, what keys and values may take at most. */
const KV_SHARE = 0.4

/**
 * What inference takes unless told otherwise. On a CPU up to half a GiB of keys and values (on tfjs less), 1024 rows and 64 sequences at once; on a
 * GPU up to two fifths of what is free, as far as it is needed, 4096 rows and 512 sequences, fewer where the vocabulary is large.
 */
export function planInference(
  config: ModelConfig,
  options: InferenceWishes & Pick<Backend, 'device'> & Partial<Pick<Backend, 'activations' | 'memory'>>,
): InferenceLimits {
  const budget = budgetOf(options)
  const bytesPerSlot = slotBytes(config, options.activations ?? 'f32')
  const affordable = options.device === 'tfjs' ? TFJS_SLOTS : Math.floor(budget.kvBytes / bytesPerSlot)
  const held = Math.max(1, Math.min(budget.sequences, Math.floor(budget.logitBytes / (4 * config.vocab))))
  const sequences = options.batchSequences ?? held
  const slots = options.kvCacheTokens ?? Math.min(affordable, sequences * config.contextLength)
  const tokens = Math.max(options.batchTokens ?? budget.tokens, sequences)
  const roomySlots = Math.min(slots, Math.ceil(budget.roomyKvBytes / bytesPerSlot))
  return {
    slots,
    roomySlots,
    tokens,
    sequences,
    context: Math.min(sequences * Math.min(config.contextLength, slots), MOST_CONTEXT),
  }
}

/** Entries of all sequences' contexts in one pass: an array of the host's as well. */
const MOST_CONTEXT = 1 << 24

function budgetOf({ device, memory }: Pick<Backend, 'device'> & Partial<Pick<Backend, 'memory'>>): Budget {
  const own = device === 'cuda' ? memory?.() : null
  if (!own) return HOST
  return { kvBytes: KV_SHARE * own.free, roomyKvBytes: 512 * MIB, tokens: 4096, sequences: 512, logitBytes: 192 * MIB }
}

/** Keys and values of a token, in all layers. */
export function slotBytes({ layers, kvHeads, headDim }: ModelConfig, activations: Backend['activations']): number {
  return layers * 2 * kvHeads * headDim * DTYPE_BYTES[activations]
}

/** What a pass reads and answers, logits included. */
function inputBytes({ vocab, hidden }: ModelConfig, { context, tokens, sequences }: InferenceLimits): number {
  const row = vocab + Math.ceil(vocab / 32) + hidden + 32
  return 4 * (2 * context + 3 * tokens + sequences * row) + 64 * 16
}

/** What lives within a pass. */
function scratchBytes(
  { hidden, inner, heads, headDim }: ModelConfig,
  { tokens }: InferenceLimits,
  activations: Backend['activations'],
): number {
  return DTYPE_BYTES[activations] * tokens * (4 * hidden + 4 * inner + 4 * heads * headDim)
}

/** All that inference takes beside weights, keys and values. */
export function passBytes(config: ModelConfig, limits: InferenceLimits, activations: Backend['activations']): number {
  return inputBytes(config, limits) + scratchBytes(config, limits, activations)
}

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

  async run(plan: BatchPlan): Promise<SequenceToken[]> {
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
    this.#captures.run(this.#shape(plan, watched), () => {
      if (plan.ahead) this.#feed(views)
      this.#forward(this.#batch(plan, views, live), views)
      if (sampled.length > 0 && !watched) sample()
    })
    if (sampled.length === 0) return [] // part of a long prompt
    const alternatives = watched ? await this.#alternatives(sampled, views.sampling.logits) : []
    if (watched) {
      await this.#uploadMasks(masks)
      sample()
    }
    const tokens = await this.#inputs.download(views, sampled.length)
    return watched ? tokens.map((token, i) => (alternatives[i] ? { ...token, topLogprobs: alternatives[i] } : token)) : tokens
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
    const { kvHeads, headDim, layers } = this.model.config
    const slots = Math.min(wanted, this.#slots)
    const memory = this.backend.arena(
      layers * 2 * slots * kvHeads * headDim * DTYPE_BYTES[this.backend.activations] + 64 * 2 * layers,
    )
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

  /** Hidden states of the batch and the logits of its sampled rows, if any. */
  #forward(batch: Batch, { sampleRows, sampled, sampling: { logits } }: PassViews): void {
    this.#scratch.reset()
    // The scheduler puts rows of one set of weights into a pass, so the first policy's are everybody's.
    const own = batch.policies.length > 0 ? this.policies(batch.policies[0]!.policy).own : null
    const options = { arena: this.#scratch, loras: this.policies, ...(own && { weights: own.weights }) }
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
    return { sizes, weights: policies.map(({ policy }) => this.policies(policy)) }
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
