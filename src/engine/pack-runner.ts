// Packs on the device: forward and backward of one after the other beside their tree's trunk, whose keys, values and activations stay
// for as long as its packs come. What a pack finds out about the trunk's keys and values is added up, and the trunk goes back last.

import { type Batch, type KvStore, liveSegments } from './batch'
import { slotBytes } from './inference-plan'
import type { Activations, Model, TrunkGradient } from './model'
import { DTYPE_BYTES } from './ops/arena'
import type { Arena, Backend, Tensor } from './ops/ops'
import { counting } from './pack-layout'
import { rowBytes } from './pack-plan'
import type { PolicyWeights } from './policy-weights'
import type { Pack, PackedTree } from './prefix-tree'

/** Logits of a pack that are kept for its backward pass, which computes larger ones again. */
const KEPT_LOGIT_BYTES = 64 * 1024 ** 2
const ROWS_STEP = 128
/** For what goes with segments and pairs, and the ends of tensors. */
const SMALL_BYTES = 4 * 1024 ** 2

export interface PassOptions {
  readonly weights: PolicyWeights | null
  readonly temperature: number
  readonly forBackward: boolean
  /** The gradient doesn't hang on the statistics: they are found on the way back, where the logits are computed anyway. */
  readonly gradientKnown?: boolean
}

/** Statistics of a pack's pairs, in their order. */
interface PairTensors {
  readonly rows: Tensor // i32 [pairs]
  readonly targets: Tensor // i32 [pairs]
  readonly logprobs: Tensor // [pairs]
  readonly entropies: Tensor // [pairs]
  readonly lse: Tensor // [pairs]
  readonly logits?: Tensor // [pairs, vocab], kept for the backward pass where they are few
}

/** A pack on the device, after its forward pass. */
export interface ResidentPack {
  readonly pack: Pack
  readonly batch: Batch
  readonly kv: readonly KvStore[]
  readonly hidden: Tensor // [live rows, hidden]
  /** Null for a trunk that predicts nothing. */
  readonly pairs: PairTensors | null
  readonly saved: Activations | null
}

/** A tree whose trunk is on the device. */
export interface ResidentTree {
  readonly trunk: ResidentPack | null
  readonly pass: PassOptions
  /** Room for the trunk and any one pack. */
  readonly kv: readonly KvStore[]
  readonly gradient: Omit<TrunkGradient, 'of'> | null
  /** Where the packs' own memory begins. */
  readonly mark: number
}

export interface PairGradient {
  readonly dLogprobs: Float32Array
  readonly dEntropies?: Float32Array
}

export class PackRunner {
  constructor(
    private readonly backend: Backend,
    private readonly model: Model,
    private readonly arena: Arena,
  ) {}

  /** Forgets the tree before and computes the trunk of this one. */
  open({ trunk, packs }: PackedTree, pass: PassOptions): ResidentTree {
    const { arena, model } = this
    arena.reset()
    const slots = (trunk?.tokens ?? 0) + Math.max(...packs.map(({ tokens }) => tokens))
    if (pass.forBackward && this.backend.device === 'cuda') this.reserve(slots, { trunk, packs }, pass)
    // Where nothing looks back at a layer's keys and values, all layers share one store.
    const kv = trunk || pass.forBackward ? model.kvStores(slots, arena) : this.sharedKv(slots)
    if (!trunk) return { trunk: null, pass, kv, gradient: null, mark: arena.mark() }
    const resident = this.compute(trunk, kv, pass)
    const gradient = pass.forBackward ? this.trunkGradient(trunk) : null
    return { trunk: resident, pass, kv, gradient, mark: arena.mark() }
  }

  /** Takes the place of the pack before. */
  forward(tree: ResidentTree, pack: Pack): ResidentPack {
    this.arena.reset(tree.mark)
    return this.compute(pack, tree.kv, tree.pass)
  }

  /** Adds a pack's gradients to those of the policy; the trunk's comes when all its packs are through. */
  backward(tree: ResidentTree, state: ResidentPack, { dLogprobs, dEntropies }: PairGradient): void {
    const { arena, backend, model } = this
    const { batch, kv, hidden, pairs } = state
    const { weights, temperature } = tree.pass
    if (state === tree.trunk) arena.reset(tree.mark) // its packs are through
    const dHidden = arena.tensor(hidden.shape, hidden.dtype)
    if (pairs) {
      const head = this.head(tree.pass)
      const dHead = weights?.own && { dHead: weights.own.gradients.head }
      const given = { dLogprobs: this.floats(dLogprobs), ...(dEntropies && { dEntropies: this.floats(dEntropies) }) }
      const forward = tree.pass.gradientKnown ?? false
      backend.ops.logprobBackward({ ...pairs, hidden, head, temperature, dHidden, forward, ...given, ...dHead })
    }
    const trunk = tree.gradient && {
      trunk: { of: state === tree.trunk ? ('trunk' as const) : ('pack' as const), ...tree.gradient },
    }
    model.backward(batch, kv, { arena, saved: state.saved!, dHidden, ...weights?.own, ...trunk })
  }

  private compute(pack: Pack, stores: readonly KvStore[], pass: PassOptions): ResidentPack {
    const { arena, model } = this
    const batch = this.upload(pack, pass.weights)
    const slots = pack.firstSlot + pack.tokens
    const kv = stores.map(({ k, v }) => ({ k: k.rows(0, slots), v: v.rows(0, slots) }))
    const saved = pass.forBackward ? model.activations(pack.tokens, arena) : null
    const own = pass.weights?.own?.weights
    const options = { arena, loras: () => pass.weights!, ...(saved && { saved }), ...(own && { weights: own }) }
    const hidden = model.forward(batch, kv, options)
    return { pack, batch, kv, hidden, pairs: this.statistics(pack, hidden, pass), saved }
  }

  /** Memory that is a GPU's own is asked for at once, for some rows more, since few packs are of one size. */
  private reserve(rows: number, { trunk, packs }: PackedTree, { weights }: PassOptions): void {
    const { config, activationType } = this.model
    const kind = { valueBytes: DTYPE_BYTES[activationType], rank: weights?.spec?.rank ?? 0 }
    const sums = (trunk?.tokens ?? 0) * slotBytes(config, 'f32')
    const logits =
      Math.max(...packs.map((pack) => keptLogitBytes(pack, config.vocab))) + (trunk ? keptLogitBytes(trunk, config.vocab) : 0)
    const some = Math.ceil(rows / ROWS_STEP) * ROWS_STEP
    this.arena.reserve(some * rowBytes(config, kind) + sums + logits + SMALL_BYTES)
  }

  /** Of a pack's pairs; where the gradient is known, no more than room for them. */
  private statistics(pack: Pack, hidden: Tensor, pass: PassOptions): PairTensors | null {
    const count = pack.rows.length
    if (count === 0) return null
    const [logprobs, entropies, lse] = [0, 1, 2].map(() => this.arena.tensor([count])) as [Tensor, Tensor, Tensor]
    const head = this.head(pass)
    const kept = pass.forBackward && keptLogitBytes(pack, head.shape[0]!) > 0
    const logits = kept && { logits: this.arena.tensor([count, head.shape[0]!]) }
    const pairs = { rows: this.ints(pack.rows), targets: this.ints(pack.targets), logprobs, entropies, lse, ...logits }
    if (!pass.gradientKnown) this.backend.ops.logprob({ ...pairs, hidden, head, temperature: pass.temperature })
    return pairs
  }

  private head({ weights }: PassOptions): Tensor {
    return weights?.own?.weights.head ?? this.model.head
  }

  private sharedKv(slots: number): KvStore[] {
    const width = this.model.config.kvHeads * this.model.config.headDim
    const room = () => this.arena.tensor([slots, width], this.model.activationType)
    const store = { k: room(), v: room() }
    return Array.from({ length: this.model.config.layers }, () => store)
  }

  private trunkGradient({ tokens }: Pack): Omit<TrunkGradient, 'of'> {
    const sums = this.model.kvStores(tokens, this.arena, 'f32')
    for (const { k, v } of sums) for (const sum of [k, v]) this.backend.ops.fill(sum, 0)
    return { sums, rows: this.ints(counting(0, tokens)) }
  }

  private upload(pack: Pack, weights: PolicyWeights | null): Batch {
    const { tokens, firstSlot, liveStart, segments } = pack
    const context = this.ints(pack.context)
    const plan = (data: Int32Array) => {
      const segmentCount = data.length / 4
      return { segments: this.ints(data, [segmentCount, 4]), context, segmentCount }
    }
    return {
      tokens,
      ids: this.ints(pack.ids),
      positions: this.ints(pack.positions),
      slots: this.ints(counting(firstSlot, firstSlot + tokens)),
      plan: plan(segments),
      policies: weights ? [{ policy: '', rowStart: 0, rowCount: tokens }] : [],
      live: { start: liveStart, plan: plan(liveSegments(segments, liveStart)) },
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
}

/** 0 where they are too many to be kept. */
function keptLogitBytes({ rows }: Pack, vocab: number): number {
  const bytes = DTYPE_BYTES.f32 * rows.length * vocab
  return bytes <= KEPT_LOGIT_BYTES ? bytes : 0
}
