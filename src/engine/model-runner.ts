// Runs a batch plan on the device: uploads it, one forward pass, logits of the sampled rows, one token each.

import type { Batch, KvStore, LiveRows } from './batch'
import { type BatchLimits, type BatchPlan, SEGMENTS } from './batch-plan'
import type { Model } from './model'
import type { ModelConfig } from './model-config'
import type { Arena, Backend, Tensor } from './ops/ops'
import type { PolicyWeights } from './policy-weights'
import type { Runner } from './scheduler'
import type { Sequence, SequenceToken, TokenAlternative } from './sequence'

export interface InferenceLimits extends BatchLimits {
  /** Tokens whose keys and values fit into the cache. */
  readonly slots: number
  /** As many are used without a second thought; beyond, what is only cached makes way first. */
  readonly roomySlots: number
}

const KV_CACHE_BYTES = 512 * 1024 ** 2
const ROOMY_KV_BYTES = 128 * 1024 ** 2
/** TensorFlow.js passes whole stores into its ops, so a large one costs at every step. */
const TFJS_SLOTS = 4096
const BATCH_TOKENS = 1024
const BATCH_SEQUENCES = 64

/** What inference takes: up to half a GiB of keys and values (on tfjs less), 1024 rows and 64 sequences at once, unless told otherwise. */
export function planInference(
  config: ModelConfig,
  options: { device: Backend['device']; kvCacheTokens?: number; batchTokens?: number; batchSequences?: number },
): InferenceLimits {
  const bytesPerSlot = config.layers * 2 * config.kvHeads * config.headDim * 4
  const affordable = options.device === 'tfjs' ? TFJS_SLOTS : Math.floor(KV_CACHE_BYTES / bytesPerSlot)
  const sequences = options.batchSequences ?? BATCH_SEQUENCES
  const slots = options.kvCacheTokens ?? Math.min(affordable, sequences * config.contextLength)
  const tokens = Math.max(options.batchTokens ?? BATCH_TOKENS, sequences)
  const roomySlots = Math.min(slots, Math.ceil(ROOMY_KV_BYTES / bytesPerSlot))
  return { slots, roomySlots, tokens, sequences, context: sequences * Math.min(config.contextLength, slots) }
}

export class ModelRunner implements Runner {
  readonly #inputs: Inputs
  #kv: readonly KvStore[] = []
  #kvSlots = 0
  #kvMemory: Arena | null = null
  /** What lives within one pass. */
  readonly #scratch: Arena
  readonly #memory: Arena
  readonly #slots: number

  constructor(
    private readonly backend: Backend,
    private readonly model: Model,
    options: { limits: InferenceLimits; policies: (policy: string) => PolicyWeights },
  ) {
    const { slots, sequences, context, tokens } = options.limits
    const { config } = model
    const inputBytes = 4 * (2 * context + 3 * tokens + sequences * (config.vocab + config.hidden + 32))
    this.policies = options.policies
    this.#memory = backend.arena(inputBytes + 64 * 16)
    this.#slots = slots
    this.#growKv(options.limits.roomySlots)
    this.#inputs = takeInputs(this.#memory, options.limits, config)
    this.#scratch = backend.arena(4 * tokens * (4 * config.hidden + 4 * config.inner + 4 * config.heads * config.headDim))
  }

  private readonly policies: (policy: string) => PolicyWeights

  async run(plan: BatchPlan): Promise<SequenceToken[]> {
    const { backend, model } = this
    const { samples } = plan
    this.#scratch.reset()
    const highest = plan.slots.subarray(0, plan.rows).reduce((most, slot) => Math.max(most, slot), 0)
    if (highest >= this.#kvSlots) this.#growKv(Math.max(highest + 1, 2 * this.#kvSlots))
    // The scheduler puts rows of one set of weights into a pass, so the first policy's are everybody's.
    const own = plan.policies.length > 0 ? this.policies(plan.policies[0]!.policy).own : null
    const options = { arena: this.#scratch, loras: this.policies, ...(own && { weights: own.weights }) }
    const hidden = model.forward(this.#upload(plan), this.#kv, options)
    if (samples.length === 0) return [] // part of a long prompt
    const inputs = firstRows(this.#inputs, samples.length)
    this.#uploadSampling(samples.map(({ sequence }) => sequence))
    this.#put(
      inputs.sampleRows,
      samples.map(({ row }) => row - plan.liveStart),
    )
    backend.ops.gatherRows({ out: inputs.sampled, from: hidden, rows: inputs.sampleRows })
    model.logits(inputs.sampled, inputs.logits, own?.weights.head)
    const alternatives = await this.#alternatives(plan, inputs.logits)
    backend.ops.sample({ ...inputs, history: this.#inputs.history })
    const tokens = await backend.download(inputs.tokens)
    const logprobs = await backend.download(inputs.logprobs)
    return samples.map((_, i) => {
      const sampled = { token: tokens[i]!, logprob: logprobs[2 * i]!, plainLogprob: logprobs[2 * i + 1]! }
      return alternatives[i] ? { ...sampled, topLogprobs: alternatives[i] } : sampled
    })
  }

  close(): void {
    this.#scratch.close()
    this.#kvMemory?.close()
    this.#memory.close()
  }

  /** Stores of as many slots as are in use: what lies in them moves along. */
  #growKv(wanted: number): void {
    const { kvHeads, headDim, layers } = this.model.config
    const slots = Math.min(wanted, this.#slots)
    const memory = this.backend.arena(layers * 2 * slots * kvHeads * headDim * 4 + 64 * 2 * layers)
    const grown = this.model.kvStores(slots, memory)
    for (const [l, { k, v }] of this.#kv.entries())
      for (const [to, from] of [[grown[l]!.k, k] as const, [grown[l]!.v, v] as const])
        this.backend.ops.copy(to.rows(0, this.#kvSlots), from)
    this.#kvMemory?.close()
    this.#kv = grown
    this.#kvSlots = slots
    this.#kvMemory = memory
  }

  #upload(plan: BatchPlan): Batch {
    const { backend } = this
    const inputs = this.#inputs
    const [ids, positions, slots] = [inputs.ids, inputs.positions, inputs.slots].map((tensor) => tensor.rows(0, plan.rows)) as [
      Tensor,
      Tensor,
      Tensor,
    ]
    backend.upload(ids, plan.ids.subarray(0, plan.rows))
    backend.upload(positions, plan.positions.subarray(0, plan.rows))
    backend.upload(slots, plan.slots.subarray(0, plan.rows))
    backend.upload(inputs.segments.rows(0, plan.segmentCount), plan.segments.subarray(0, 4 * plan.segmentCount))
    backend.upload(inputs.context.rows(0, plan.contextCount), plan.context.subarray(0, plan.contextCount))
    const attention = { segments: inputs.segments, context: inputs.context, segmentCount: plan.segmentCount }
    const batch = { tokens: plan.rows, ids, positions, slots, plan: attention, policies: plan.policies }
    return plan.liveStart === 0 ? batch : { ...batch, live: this.#uploadLive(plan) }
  }

  /** The rows that are sampled from, their segments counted from the first of them. */
  #uploadLive({ liveStart: start, liveSegment, segmentCount, segments }: BatchPlan): LiveRows {
    const own = segments.slice(4 * liveSegment, 4 * segmentCount)
    for (let s = 0; s < own.length; s += 4) own[s]! -= start
    const { liveSegments, context } = this.#inputs
    this.backend.upload(liveSegments.rows(0, own.length / 4), own)
    return { start, plan: { segments: liveSegments, context, segmentCount: own.length / 4 } }
  }

  /** Each row's sampling values, random number and, under a repetition penalty, the tokens it has seen. */
  #uploadSampling(sequences: readonly Sequence[]): void {
    const { floats, ints } = firstRows(this.#inputs, sequences.length)
    const history = sequences.flatMap((sequence) => [...sequence.history])
    let start = 0
    const rows = sequences.map(({ request: { sampling }, uniform, history: { size } }) => {
      const { temperature, topP, minP, repetitionPenalty, topK } = sampling
      const row = { floats: [temperature, topP, minP, repetitionPenalty, uniform, 0], ints: [topK, start, size, 0] }
      start += size
      return row
    })
    this.backend.upload(floats, Float32Array.from(rows.flatMap((row) => row.floats)))
    this.#put(
      ints,
      rows.flatMap((row) => row.ints),
    )
    if (history.length > 0) this.#put(this.#inputs.history.rows(0, history.length), history)
  }

  /** The most likely tokens of the rows that asked for them; the logits are read before `sample` may overwrite them. */
  async #alternatives(plan: BatchPlan, logits: Tensor): Promise<(TokenAlternative[] | undefined)[]> {
    const answers: (TokenAlternative[] | undefined)[] = []
    for (const [i, { sequence }] of plan.samples.entries()) {
      const count = sequence.request.topLogprobs
      if (count) answers[i] = mostLikely((await this.backend.download(logits.rows(i, 1))) as Float32Array, count)
    }
    return answers
  }

  #put(to: Tensor, values: readonly number[]): void {
    this.backend.upload(to, Int32Array.from(values))
  }
}

/** Device buffers at full size. */
type Inputs = ReturnType<typeof takeInputs>

function takeInputs(arena: Arena, limits: InferenceLimits, config: ModelConfig) {
  const { tokens, sequences, context } = limits
  return {
    ids: arena.tensor([tokens], 'i32'),
    positions: arena.tensor([tokens], 'i32'),
    slots: arena.tensor([tokens], 'i32'),
    segments: arena.tensor([SEGMENTS * sequences, 4], 'i32'),
    liveSegments: arena.tensor([SEGMENTS * sequences, 4], 'i32'),
    context: arena.tensor([context], 'i32'),
    history: arena.tensor([sequences * Math.min(config.contextLength, config.vocab)], 'i32'),
    sampleRows: arena.tensor([sequences], 'i32'),
    sampled: arena.tensor([sequences, config.hidden]),
    logits: arena.tensor([sequences, config.vocab]),
    floats: arena.tensor([sequences, 6]),
    ints: arena.tensor([sequences, 4], 'i32'),
    tokens: arena.tensor([sequences], 'i32'),
    logprobs: arena.tensor([sequences, 2]),
  }
}

/** Views of the per-sample buffers for `count` samples. */
function firstRows({ sampleRows, sampled, logits, floats, ints, tokens, logprobs }: Inputs, count: number) {
  const first = (tensor: Tensor) => tensor.rows(0, count)
  return {
    sampleRows: first(sampleRows),
    sampled: first(sampled),
    logits: first(logits),
    floats: first(floats),
    ints: first(ints),
    tokens: first(tokens),
    logprobs: first(logprobs),
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
