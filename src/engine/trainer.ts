// Logprobs and updates over packs of sequences. The loss lives outside: it sees a logprob and an entropy for every completion
// token and answers with a gradient for each; what lies between them and the policy's weights happens here.

import { checkGradient, checkSequences } from './check-step'
import { collectYoungGarbage } from './collect-garbage'
import type { LinearLoss, LossGradient, StepConfig, TokenStats, TrainLoss, TrainSequence, TrainStats } from './engine'
import { sumGradients } from './gradient-sum'
import { planActivations } from './memory-plan'
import type { Model } from './model'
import { DTYPE_BYTES } from './ops/arena'
import type { Arena, Backend } from './ops/ops'
import { gradientNorm, updateWeights } from './optimizer'
import { LEAST_SAVED, planPackTokens } from './pack-plan'
import { PackRunner, type PassOptions, type ResidentPack, type ResidentTree } from './pack-runner'
import type { PolicyWeights } from './policy-weights'
import type { PartWork } from './pool-member'
import { buildPacks, completionStarts, type PackedSequences } from './prefix-tree'

/** Per completion token, in the order the sequences were given. */
interface FlatStats {
  readonly logprobs: Float32Array
  readonly entropies: Float32Array
}

interface LinearResult extends FlatStats {
  readonly objective: number
}

/** Waits for what a linear loss's passes found; null where the loss was given all of it. */
type Answers = (() => Promise<LinearResult>) | null

export class Trainer {
  private readonly arena: Arena
  private readonly runner: PackRunner
  private readonly defaultPackTokens: number

  constructor(
    private readonly backend: Backend,
    private readonly model: Model,
    /** For the activations of a trunk and a pack. */
    activationBytes: number = planActivations(model.config, { precision: backend.precision }),
  ) {
    const { device, activations } = backend
    this.defaultPackTokens = planPackTokens(model.config, activationBytes, { device, valueBytes: DTYPE_BYTES[activations] })
    this.arena = backend.arena(1 << 20) // grows to the largest pack seen
    this.runner = new PackRunner(backend, model, this.arena)
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
  trainStep(
    weights: PolicyWeights,
    sequences: readonly TrainSequence[],
    loss: TrainLoss,
    config: StepConfig,
  ): Promise<TrainStats> {
    return this.update(weights, sequences, loss, { config })
  }

  /** The same by the gradients of all parts together. An empty part has none of its own; its loss isn't called. */
  trainPart(weights: PolicyWeights, sequences: readonly TrainSequence[], loss: TrainLoss, work: PartWork): Promise<TrainStats> {
    return this.update(weights, sequences, loss, work)
  }

  private async update(
    weights: PolicyWeights,
    sequences: readonly TrainSequence[],
    loss: TrainLoss,
    { config, part }: Pick<PartWork, 'config'> & Partial<PartWork>,
  ): Promise<TrainStats> {
    const started = performance.now()
    const packed = this.pack(sequences, config.packTokens)
    let gradNorm = 0
    let linear: LinearResult | null = typeof loss === 'function' ? null : { ...flatStats(0), objective: 0 }
    if (packed.pairs > 0 || part) {
      const pass = { weights, temperature: config.temperature, forBackward: true }
      let answers: Answers = null
      if (packed.pairs > 0) answers = await this.accumulateGradients(packed, loss, pass)
      else {
        this.arena.reset()
        weights.zeroGradients()
      }
      if (part) await sumGradients(weights, part)
      gradNorm = await gradientNorm(weights, this.arena.tensor([1]))
      updateWeights(weights, gradNorm, config)
      if (answers) linear = await answers() // the device has its update to make meanwhile
    }
    const { tokens, tokensUnshared } = packed
    const packs = countPacks(packed)
    const seconds = (performance.now() - started) / 1000
    return { policyVersion: weights.policyVersion, gradNorm, tokens, tokensUnshared, packs, seconds, ...linear }
  }

  /** The gradient alone, left in the policy's gradient tensors. */
  async gradients(
    weights: PolicyWeights,
    sequences: readonly TrainSequence[],
    loss: TrainLoss,
    options: { temperature: number; packTokens?: number },
  ): Promise<void> {
    const pass = { weights, temperature: options.temperature, forBackward: true }
    await (await this.accumulateGradients(this.pack(sequences, options.packTokens), loss, pass))?.()
  }

  close(): void {
    this.arena.close()
  }

  /** All is enqueued when it resolves: to the answers that are still to arrive of a linear loss. */
  private accumulateGradients(packed: PackedSequences, loss: TrainLoss, pass: PassOptions): Promise<Answers> {
    return typeof loss === 'function'
      ? this.twoPasses(packed, loss, pass)
      : this.onePass(packed, loss, { ...pass, gradientKnown: true })
  }

  /** The gradient is known: forward and backward pack by pack. The device works on a pack while the host lays out the next. */
  private async onePass(packed: PackedSequences, { dLogprobs }: LinearLoss, pass: PassOptions): Promise<Answers> {
    checkGradient('dLogprobs', dLogprobs, packed.pairs)
    pass.weights!.zeroGradients()
    const stats = flatStats(packed.pairs)
    const arriving: (() => Promise<void>)[] = []
    let left = countPacks(packed)
    const step = (tree: ResidentTree, state: ResidentPack) => {
      this.runner.backward(tree, state, { dLogprobs: take(dLogprobs, state.pack.places) })
      arriving.push(this.collect(state, stats))
    }
    for (const packedTree of packed.trees) {
      const tree = this.runner.open(packedTree, pass)
      for (const pack of packedTree.packs) {
        step(tree, this.runner.forward(tree, pack))
        if (--left === 0 && arriving.length > 1 && this.backend.device === 'cuda') collectYoungGarbage() // it has two packs to compute
        while (arriving.length > 1) await arriving.shift()!() // one pack ahead of the device is enough
      }
      if (tree.trunk) step(tree, tree.trunk)
    }
    return async () => {
      for (const arrived of arriving) await arrived()
      return { ...stats, objective: dot(dLogprobs, stats.logprobs) }
    }
  }

  private async twoPasses(packed: PackedSequences, loss: LossGradient, pass: PassOptions): Promise<null> {
    const { stats, last } = await this.forwardAll(packed, pass)
    const { dLogprobs, dEntropies } = await loss(stats.logprobs, stats.entropies)
    checkGradient('dLogprobs', dLogprobs, packed.pairs)
    if (dEntropies) checkGradient('dEntropies', dEntropies, packed.pairs)
    pass.weights!.zeroGradients()
    const step = (tree: ResidentTree, state: ResidentPack) => {
      const { places } = state.pack
      this.runner.backward(tree, state, {
        dLogprobs: take(dLogprobs, places),
        ...(dEntropies && { dEntropies: take(dEntropies, places) }),
      })
    }
    // The last tree and its last pack are still on the device, so they go first; the others are computed again.
    for (const packedTree of [...packed.trees].reverse()) {
      const tree = last && packedTree === packed.trees.at(-1) ? last.tree : this.runner.open(packedTree, pass)
      for (const pack of [...packedTree.packs].reverse())
        step(tree, pack === last?.state.pack ? last.state : this.runner.forward(tree, pack))
      if (tree.trunk) step(tree, tree.trunk)
    }
    return null
  }

  /** Runs every pack; the last tree and its last pack stay in the arena. */
  private async forwardAll(
    packed: PackedSequences,
    pass: PassOptions,
  ): Promise<{ stats: FlatStats; last: { tree: ResidentTree; state: ResidentPack } | null }> {
    const stats = flatStats(packed.pairs)
    let last: { tree: ResidentTree; state: ResidentPack } | null = null
    for (const packedTree of packed.trees) {
      const tree = this.runner.open(packedTree, pass)
      if (tree.trunk) await this.collect(tree.trunk, stats)()
      for (const pack of packedTree.packs) {
        last = { tree, state: this.runner.forward(tree, pack) }
        await this.collect(last.state, stats)()
      }
    }
    return { stats, last }
  }

  /** A pack's statistics, asked for before anything else may overwrite them and waited for when the answer is called. */
  private collect({ pack, pairs }: ResidentPack, stats: FlatStats): () => Promise<void> {
    if (!pairs) return async () => {}
    const [logprobs, entropies] = [pairs.logprobs, pairs.entropies].map((one) => this.backend.fetch(one))
    return async () => {
      put(stats.logprobs, pack.places, await logprobs!())
      put(stats.entropies, pack.places, await entropies!())
    }
  }

  /** Who asks for packs of a size gets them with whatever trunk they share. */
  private pack(sequences: readonly TrainSequence[], packTokens?: number): PackedSequences {
    checkSequences(sequences, this.model.config)
    if (packTokens !== undefined) return buildPacks(sequences, packTokens)
    return buildPacks(sequences, this.defaultPackTokens, LEAST_SAVED[this.backend.device])
  }
}

function countPacks({ trees }: PackedSequences): number {
  return trees.reduce((sum, { packs }) => sum + packs.length, 0)
}

function flatStats(pairs: number): FlatStats {
  return { logprobs: new Float32Array(pairs), entropies: new Float32Array(pairs) }
}

function dot(a: Float32Array, b: Float32Array): number {
  let sum = 0
  for (let i = 0; i < b.length; i++) sum += a[i]! * b[i]!
  return sum
}

function take(all: Float32Array, places: Int32Array): Float32Array {
  const own = new Float32Array(places.length)
  for (let i = 0; i < places.length; i++) own[i] = all[places[i]!]!
  return own
}

function put(all: Float32Array, places: Int32Array, own: ArrayLike<number>): void {
  for (let i = 0; i < places.length; i++) all[places[i]!] = own[i]!
}
