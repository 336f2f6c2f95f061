// Logprobs and updates over packs of sequences. The loss lives outside: it sees a logprob and an entropy for every completion
// token and answers with a gradient for each; what lies between them and the policy's weights happens here.

import { totalmem } from 'node:os'
import { ArborError, ContextWindowExceededError, OptionError } from '../errors'
import type { Batch, KvStore } from './batch'
import type { LinearLoss, LossGradient, StepConfig, TokenStats, TrainLoss, TrainSequence, TrainStats } from './engine'
import type { Activations, Model } from './model'
import type { Arena, Backend, Tensor } from './ops/ops'
import { gradientNorm, updateWeights } from './optimizer'
import { planPackTokens } from './pack-plan'
import type { PolicyWeights } from './policy-weights'
import { buildPacks, completionStarts, type Pack, type PackedSequences } from './prefix-tree'

/** A pack on the device, after its forward pass. */
interface ResidentPack {
  readonly batch: Batch
  readonly kv: readonly KvStore[]
  readonly hidden: Tensor // [tokens, hidden]
  readonly head: Tensor // [vocab, hidden]
  readonly rows: Tensor // i32 [pairs]
  readonly targets: Tensor // i32 [pairs]
  readonly logprobs: Tensor // [pairs]
  readonly entropies: Tensor // [pairs]
  readonly lse: Tensor // [pairs]
  readonly saved?: Activations
}

interface PassOptions {
  readonly weights: PolicyWeights | null
  readonly temperature: number
  readonly forBackward: boolean
}

/** Per completion token, in the order the sequences were given. */
interface FlatStats {
  readonly logprobs: Float32Array
  readonly entropies: Float32Array
}

export class Trainer {
  private readonly arena: Arena
  private readonly defaultPackTokens: number

  constructor(
    private readonly backend: Backend,
    private readonly model: Model,
    memoryBytes: number = totalmem(),
  ) {
    this.defaultPackTokens = planPackTokens(model.config, memoryBytes)
    this.arena = backend.arena(1 << 20) // grows to the largest pack seen
  }

  /** Statistics of every completion token under the policy, or under the base (null). Changes nothing. */
  async logprobs(
    weights: PolicyWeights | null,
    sequences: readonly TrainSequence[],
    options: { temperature: number; packTokens?: number },
  ): Promise<TokenStats[]> {
    const packed = this.pack(sequences, options.packTokens)
    const pass = { weights, temperature: options.temperature, forBackward: false }
    const { logprobs, entropies } = (await this.forwardAll(packed, pass)).stats
    const starts = completionStarts(sequences)
    return sequences.map((_, i) => ({
      logprobs: logprobs.slice(starts[i], starts[i + 1]),
      entropies: entropies.slice(starts[i], starts[i + 1]),
    }))
  }

  /**
   * One update: forward of all packs, the loss once over everything, backward pack by pack, clipping, AdamW, version + 1. With a
   * linear loss each pack's backward follows its forward at once.
   * Without any completion token there is nothing to learn from: no update, gradNorm 0, the version stays (a caller that counts
   * such a step may raise `weights.policyVersion` itself). When the loss answers with anything but finite numbers: ArborError, no update.
   */
  async trainStep(
    weights: PolicyWeights,
    sequences: readonly TrainSequence[],
    loss: TrainLoss,
    config: StepConfig,
  ): Promise<TrainStats> {
    const started = performance.now()
    const packed = this.pack(sequences, config.packTokens)
    let gradNorm = 0
    let objective = typeof loss === 'function' ? null : 0
    if (packed.pairs > 0) {
      const pass = { weights, temperature: config.temperature, forBackward: true }
      objective = await this.accumulateGradients(packed, loss, pass)
      gradNorm = await gradientNorm(weights, this.arena.tensor([1]))
      updateWeights(weights, gradNorm, config)
    }
    const { tokens, tokensUnshared, packs } = packed
    const seconds = (performance.now() - started) / 1000
    const stats = { policyVersion: weights.policyVersion, gradNorm, tokens, tokensUnshared, packs: packs.length, seconds }
    return objective === null ? stats : { ...stats, objective }
  }

  /** The gradient alone, left in the policy's gradient tensors. */
  async gradients(
    weights: PolicyWeights,
    sequences: readonly TrainSequence[],
    loss: TrainLoss,
    options: { temperature: number; packTokens?: number },
  ): Promise<void> {
    const pass = { weights, temperature: options.temperature, forBackward: true }
    await this.accumulateGradients(this.pack(sequences, options.packTokens), loss, pass)
  }

  close(): void {
    this.arena.close()
  }

  /** Resolves to a linear loss's value. */
  private accumulateGradients(packed: PackedSequences, loss: TrainLoss, pass: PassOptions): Promise<number | null> {
    return typeof loss === 'function' ? this.twoPasses(packed, loss, pass) : this.onePass(packed, loss, pass)
  }

  /** The gradient is known: forward and backward pack by pack. The device works on a pack while the host lays out the next. */
  private async onePass(packed: PackedSequences, { dLogprobs }: LinearLoss, pass: PassOptions): Promise<number> {
    checkGradient('dLogprobs', dLogprobs, packed.pairs)
    pass.weights!.zeroGradients()
    const logprobs = new Float32Array(packed.pairs)
    let before: Promise<void> = Promise.resolve()
    for (const pack of packed.packs) {
      const state = this.forwardPack(pack, pass)
      this.backwardPack(state, { dLogprobs: take(dLogprobs, pack.places) }, pass)
      const values = this.backend.download(state.logprobs)
      await before
      before = values.then((own) => put(logprobs, pack.places, own))
      before.catch(() => {}) // heard at the next await, or after the error that came first
    }
    await before
    return logprobs.reduce((sum, value, i) => sum + dLogprobs[i]! * value, 0)
  }

  private async twoPasses(packed: PackedSequences, loss: LossGradient, pass: PassOptions): Promise<null> {
    const { stats, resident } = await this.forwardAll(packed, pass)
    const { dLogprobs, dEntropies } = await loss(stats.logprobs, stats.entropies)
    checkGradient('dLogprobs', dLogprobs, packed.pairs)
    if (dEntropies) checkGradient('dEntropies', dEntropies, packed.pairs)
    pass.weights!.zeroGradients()
    // The last pack is still on the device, so it goes first; the others are computed again.
    for (const pack of [...packed.packs].reverse()) {
      const own = { dLogprobs: take(dLogprobs, pack.places), ...(dEntropies && { dEntropies: take(dEntropies, pack.places) }) }
      const state = resident && pack === packed.packs.at(-1) ? resident : this.forwardPack(pack, pass)
      this.backwardPack(state, own, pass)
    }
    return null
  }

  /** Runs every pack; the last one stays in the arena. */
  private async forwardAll(
    packed: PackedSequences,
    pass: PassOptions,
  ): Promise<{ stats: FlatStats; resident: ResidentPack | null }> {
    const stats = { logprobs: new Float32Array(packed.pairs), entropies: new Float32Array(packed.pairs) }
    let resident: ResidentPack | null = null
    for (const pack of packed.packs) {
      resident = this.forwardPack(pack, pass)
      put(stats.logprobs, pack.places, await this.backend.download(resident.logprobs))
      put(stats.entropies, pack.places, await this.backend.download(resident.entropies))
    }
    return { stats, resident }
  }

  private forwardPack(pack: Pack, { weights, temperature, forBackward }: PassOptions): ResidentPack {
    const { arena, model } = this
    arena.reset()
    const batch = this.upload(pack, weights)
    const saved = forBackward ? model.activations(pack.tokens, arena) : undefined
    const kv = saved ? model.kvStores(pack.tokens, arena) : this.sharedKv(pack.tokens)
    const own = weights?.own?.weights
    const hidden = model.forward(batch, kv, {
      arena,
      loras: () => weights!,
      ...(saved && { saved }),
      ...(own && { weights: own }),
    })
    const pairs = pack.rows.length
    const [logprobs, entropies, lse] = [0, 1, 2].map(() => arena.tensor([pairs])) as [Tensor, Tensor, Tensor]
    const head = own?.head ?? model.head
    const pairsOf = { rows: this.ints(pack.rows), targets: this.ints(pack.targets), logprobs, entropies, lse }
    this.backend.ops.logprob({ ...pairsOf, hidden, head, temperature })
    return { batch, kv, hidden, head, ...pairsOf, ...(saved && { saved }) }
  }

  private backwardPack(state: ResidentPack, gradient: { dLogprobs: Float32Array; dEntropies?: Float32Array }, pass: PassOptions) {
    const { arena, backend, model } = this
    const dHidden = arena.tensor([state.batch.tokens, model.config.hidden])
    const dLogprobs = this.floats(gradient.dLogprobs)
    const dEntropies = gradient.dEntropies && { dEntropies: this.floats(gradient.dEntropies) }
    const own = pass.weights?.own
    const { rows, targets, logprobs, entropies, lse, hidden, head } = state
    const forward = { rows, targets, logprobs, entropies, lse, hidden, head, temperature: pass.temperature }
    const dHead = own && { dHead: own.gradients.head }
    backend.ops.logprobBackward({ ...forward, dHidden, dLogprobs, ...dEntropies, ...dHead })
    model.backward(state.batch, state.kv, { arena, saved: state.saved!, dHidden, ...own })
  }

  /** Without a backward pass no layer needs another's keys and values: all share one store. */
  private sharedKv(tokens: number): KvStore[] {
    const width = this.model.config.kvHeads * this.model.config.headDim
    const store = { k: this.arena.tensor([tokens, width]), v: this.arena.tensor([tokens, width]) }
    return Array.from({ length: this.model.config.layers }, () => store)
  }

  private upload(pack: Pack, weights: PolicyWeights | null): Batch {
    const plan = {
      segments: this.ints(pack.segments, [pack.segments.length / 4, 4]),
      context: this.ints(pack.context),
      segmentCount: pack.segments.length / 4,
    }
    return {
      tokens: pack.tokens,
      ids: this.ints(pack.ids),
      positions: this.ints(pack.positions),
      slots: this.ints(Int32Array.from({ length: pack.tokens }, (_, row) => row)),
      plan,
      policies: weights ? [{ policy: '', rowStart: 0, rowCount: pack.tokens }] : [],
    }
  }

  private ints(data: Int32Array, shape: readonly number[] = [data.length]): Tensor {
    const tensor = this.arena.tensor(shape, 'i32')
    this.backend.upload(tensor, data)
    return tensor
  }

  private floats(data: Float32Array): Tensor {
    const tensor = this.arena.tensor([data.length])
    this.backend.upload(tensor, data)
    return tensor
  }

  private pack(sequences: readonly TrainSequence[], packTokens = this.defaultPackTokens): PackedSequences {
    const { contextLength, vocab } = this.model.config
    for (const [i, { prompt, completion }] of sequences.entries()) {
      if (prompt.length === 0 && completion.length > 0)
        throw new OptionError(`Sequence ${i} has no prompt token, so nothing predicts its first completion token.`)
      if (prompt.length + completion.length > contextLength)
        throw new ContextWindowExceededError(
          `Sequence ${i} has ${prompt.length} + ${completion.length} tokens; the model's context holds ${contextLength}. Shorten the prompt or max_tokens.`,
        )
      const stranger = [...prompt, ...completion].find((token) => !(token >= 0 && token < vocab && Number.isInteger(token)))
      if (stranger !== undefined)
        throw new OptionError(`Sequence ${i} holds token ${stranger}; the model's vocabulary has ids 0 to ${vocab - 1}.`)
    }
    return buildPacks(sequences, packTokens)
  }
}

function checkGradient(name: string, gradient: Float32Array, pairs: number): void {
  if (gradient.length !== pairs)
    throw new ArborError(`The loss returned ${gradient.length} values as ${name} for ${pairs} completion tokens.`)
  const bad = gradient.findIndex((value) => !Number.isFinite(value))
  if (bad >= 0) throw new ArborError(`The loss returned ${gradient[bad]} as ${name}[${bad}]; no update was made.`)
}

function take(all: Float32Array, places: Int32Array): Float32Array {
  return Float32Array.from(places, (place) => all[place]!)
}

function put(all: Float32Array, places: Int32Array, own: ArrayLike<number>): void {
  for (const [i, place] of places.entries()) all[place] = own[i]!
}
