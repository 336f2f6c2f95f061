// A decoder of the Llama family, written once over the ops. `forward` is a straight list of calls, `backward` the same list from
// the bottom up; there is no graph and no autograd. Dimension words: tokens, hidden, heads, kvHeads, headDim, inner, vocab.

import type { Batch, KvStore, LiveRows, PolicyRows } from './batch'
import { FUSED_LINEARS, type FusedLinear, linearShapes } from './linears'
import type { ModelConfig } from './model-config'
import { type LinearParts, loadModelWeights, type ModelParts, type ModelWeights } from './model-weights'
import type { Arena, AttentionPlan, Backend, DType, LoraGradSlice, Ops, Tensor } from './ops/ops'
import type { PolicyWeights } from './policy-weights'
import type { OpenModel } from './weights'

/** What one block keeps from its forward pass. Outputs of norms and of swiglu are not here: `backward` computes them again. */
interface LayerActivations {
  readonly attnInput: Tensor // [tokens, hidden]: the residual stream, what the norm before attention reads
  readonly attnRstd: Tensor // [tokens]
  readonly q: Tensor // [tokens, heads * headDim], rotated
  readonly attnOut: Tensor // [tokens, heads * headDim]
  readonly lse?: Tensor // [tokens, heads], only for backward
  readonly mlpInput: Tensor // [tokens, hidden]
  readonly mlpRstd: Tensor // [tokens]
  readonly gateUp: Tensor // [tokens, 2 * inner]; behind `backward`, its gradient
  readonly loras: Record<FusedLinear, readonly LoraGradSlice[]>
}

/** All that `backward` needs of a forward pass. */
export interface Activations {
  readonly layers: readonly LayerActivations[]
  /** The forward pass's, the final hidden states in it, then the backward pass's. */
  readonly scratch: Scratch
  readonly finalInput: Tensor // [tokens, hidden]
  readonly finalRstd: Tensor // [tokens]
}

export interface ForwardOptions {
  /** Where buffers and the result are taken from. */
  readonly arena: Arena
  /** The adapter of a policy named in `batch.policies`. */
  readonly loras: (policy: string) => PolicyWeights
  /** All rows run over these; default: the base's. */
  readonly weights?: ModelParts<Tensor>
  /** Made by `activations`, when a backward pass will follow. Without it, layers share their buffers. */
  readonly saved?: Activations
  /** Rows decode, and `layAdapters` had the adapters of their policies. */
  readonly laid?: boolean
}

export interface BackwardOptions {
  readonly arena: Arena
  readonly saved: Activations
  readonly dHidden: Tensor // [live rows, hidden]
  /** Between a trunk and the packs that stand on it. */
  readonly trunk?: TrunkGradient
  /** The forward pass's. */
  readonly weights?: ModelParts<Tensor>
  /** Where the gradients of `weights` are added; without it they are not computed. */
  readonly gradients?: ModelParts<Tensor>
}

/** The gradient of a trunk's keys and values, summed over the packs that see them: each pack adds its own, the trunk takes the sum. */
export interface TrunkGradient {
  readonly of: 'pack' | 'trunk'
  readonly sums: readonly KvStore[] // a layer each, [trunk rows, kvHeads * headDim]
  readonly rows: Tensor // i32 [trunk rows]: 0, 1, 2, …
}

/** Buffers that live within a layer. */
interface Scratch {
  readonly normed: Tensor // [tokens, hidden]
  readonly qkv: Tensor // [tokens, (heads + 2 kvHeads) * headDim]
  readonly inner: Tensor // [tokens, inner]
  readonly delta: Tensor // [tokens, hidden]: what a half block adds to the residual stream
}

type LaidAdapters = Parameters<Ops['layAdapters']>[0]

export class Model {
  /** What was laid last: a job's adapters are laid anew at every step, the same tensors with other values. */
  private laid: { readonly of: readonly PolicyWeights[]; readonly lists: LaidAdapters } | null = null

  private constructor(
    private readonly backend: Backend,
    readonly config: ModelConfig,
    private readonly base: ModelWeights,
  ) {}

  /** Reads all weights onto the device. Throws ModelError naming a weight that is missing or has another shape. */
  static load(backend: Backend, open: OpenModel): Model {
    return new Model(backend, open.config, loadModelWeights(backend, open))
  }

  /** What activations are kept in on this device. */
  get activationType(): DType {
    return this.backend.activations
  }

  /** [vocab, hidden] of the base; for the `logprob` op. */
  get head(): Tensor {
    return this.base.head
  }

  /** Parameters of the base, a tied head counted once. */
  get parameters(): number {
    return this.base.parameters
  }

  /** Room for keys and values of `slots` tokens, or (in f32) for their gradients, one store per layer. */
  kvStores(slots: number, arena: Arena, dtype: DType = this.activationType): KvStore[] {
    const width = this.config.kvHeads * this.config.headDim
    return this.base.layers.map(() => ({ k: arena.tensor([slots, width], dtype), v: arena.tensor([slots, width], dtype) }))
  }

  /** Room for what `backward` needs of `tokens` rows. */
  activations(tokens: number, arena: Arena): Activations {
    const layers = this.base.layers.map(() => ({
      ...this.layerBuffers(tokens, arena),
      lse: arena.tensor([tokens, this.config.heads]),
    }))
    return {
      layers,
      scratch: this.scratch(tokens, arena),
      finalInput: arena.tensor([tokens, this.config.hidden], this.activationType),
      finalRstd: arena.tensor([tokens]),
    }
  }

  /**
   * The final normed hidden states of the live rows [live rows, hidden]. Keys and values of all rows are written to their slots of `kv`;
   * above those of the last layer, rows that are not live are not computed.
   */
  forward(batch: Batch, kv: readonly KvStore[], options: ForwardOptions): Tensor {
    const { ops } = this.backend
    const { arena, saved, laid = false } = options
    const { decode = false } = batch
    const { rope } = this.base
    const { embedding, layers, finalNorm } = options.weights ?? this.base
    const { heads, kvHeads, headDim, normEps: eps } = this.config
    const scratch = saved?.scratch ?? this.scratch(batch.tokens, arena)
    const shared = saved ? null : this.sharedBuffers(batch.tokens, arena)
    const mark = arena.mark()
    let { delta } = scratch
    let x = (saved?.layers[0] ?? shared!).attnInput
    let planned: AttentionPlan | undefined // the attention's before
    ops.embed({ out: x, table: embedding, ids: batch.ids })
    for (const [l, w] of layers.entries()) {
      const all = saved?.layers[l] ?? shared!
      const { k, v } = kv[l]!
      all.loras.qkv = loraSlices(l, 'qkv', batch.policies, options)
      const carried = l === 0 ? {} : { delta, sum: all.attnInput } // the layer below's output joins the stream here
      ops.rmsNorm({ y: scratch.normed, rstd: all.attnRstd, x, weight: w.attnNorm, eps, ...carried })
      ops.linear({ y: scratch.qkv, x: scratch.normed, ...w.qkv, loras: all.loras.qkv, decode, laid })
      const places = { positions: batch.positions, slots: batch.slots, rope, heads, kvHeads, headDim }
      ops.ropeStoreKv({ qkv: scratch.qkv, q: all.q, k, v, ...places })

      const { start, plan } = liveRows(batch, l === layers.length - 1)
      if (start === batch.tokens) return tail(scratch.normed, start) // a trunk: keys and values are all there is to it
      const a = tails(all, start)
      const { normed, inner } = tails(scratch, start)
      delta = tail(scratch.delta, start)
      const policies = rowsFrom(batch.policies, start)
      for (const linear of ['o', 'gateUp', 'down'] as const) a.loras[linear] = loraSlices(l, linear, policies, options)
      const how = { heads, kvHeads, headDim, decode, samePlan: plan === planned, ...(a.lse && { lse: a.lse }) }
      ops.attention({ out: a.attnOut, q: a.q, k, v, plan, ...how })
      planned = plan
      ops.linear({ y: delta, x: a.attnOut, ...w.o, loras: a.loras.o, decode, laid })

      ops.rmsNorm({ y: normed, rstd: a.mlpRstd, x: a.attnInput, delta, sum: a.mlpInput, weight: w.mlpNorm, eps })
      ops.linear({ y: a.gateUp, x: normed, ...w.gateUp, loras: a.loras.gateUp, decode, laid })
      ops.swiglu({ y: inner, gateUp: a.gateUp })
      ops.linear({ y: delta, x: inner, ...w.down, loras: a.loras.down, decode, laid })

      x = a.mlpInput
      if (!saved) arena.reset(mark) // the layers' LoRA scratch
    }
    const { start } = liveRows(batch, true)
    const final = tails(
      saved ? { x: saved.finalInput, rstd: saved.finalRstd } : { x: shared!.attnInput, rstd: shared!.attnRstd },
      start,
    )
    const normed = tail(scratch.normed, start)
    ops.rmsNorm({ y: normed, rstd: final.rstd, x, delta, sum: final.x, weight: finalNorm, eps })
    return normed
  }

  /** Lays the adapters of a decode pass beside the base's weights, for forward passes that are told so (`laid`). */
  layAdapters(policies: readonly PolicyRows[], loras: ForwardOptions['loras']): void {
    const of = policies.filter(({ rowCount }) => rowCount > 0).map(({ policy }) => loras(policy))
    const known = this.laid?.of.length === of.length && this.laid.of.every((one, i) => one === of[i])
    if (!known) this.laid = { of, lists: this.adaptersOf(policies, loras) }
    this.backend.ops.layAdapters(this.laid!.lists)
  }

  private adaptersOf(policies: readonly PolicyRows[], loras: ForwardOptions['loras']): LaidAdapters {
    return this.base.layers.flatMap((layer, l) =>
      FUSED_LINEARS.map((linear) => ({
        weight: layer[linear].weight,
        adapters: matricesOf(l, linear, policies, { loras }).map(({ matrix }) => matrix),
      })),
    )
  }

  /** Adds the gradient of every adapter that took part in the forward pass to its `da` and `db`, those of the weights to `gradients`. */
  backward(batch: Batch, kv: readonly KvStore[], options: BackwardOptions): void {
    const { ops } = this.backend
    const { saved, dHidden, arena, gradients } = options
    const { rope } = this.base
    const { layers, finalNorm } = options.weights ?? this.base
    const { heads, kvHeads, headDim, normEps: eps } = this.config
    const { scratch } = saved
    const gradientsOf = this.gradientBuffers(batch.tokens, arena)
    const dKv = this.kvGradients(kv[0]!, arena)
    const { start: live } = liveRows(batch, true)
    if (live < batch.tokens) {
      const { x, rstd, dx } = tails({ x: saved.finalInput, rstd: saved.finalRstd, dx: gradientsOf.dx }, live)
      ops.rmsNormBackward({ dx, dy: dHidden, x, weight: finalNorm, rstd, ...norm(gradients?.finalNorm) })
    }
    let planned: AttentionPlan | undefined // of the attention above
    for (const [l, w] of [...layers.entries()].reverse()) {
      const all = saved.layers[l]!
      const g = gradients?.layers[l]
      const { k, v } = kv[l]!
      const own = (name: FusedLinear) => ({ weight: w[name].weight, loras: all.loras[name], ...linear(g?.[name]) })
      const { start, plan } = liveRows(batch, l === layers.length - 1)
      if (start < batch.tokens) {
        const a = tails(all, start)
        const d = tails(gradientsOf, start)
        const { normed, inner, delta: dNormed } = tails(scratch, start)
        // Down's dx first: with it gateUp is read once, for its gradient and for down's input, which was too large to keep. Both take the places of what
        // they come from.
        const { loras, weight } = own('down')
        ops.linearBackward({ dx: inner, dy: d.dx, weight, loras })
        ops.swigluBackward({ dGateUp: a.gateUp, dy: inner, gateUp: a.gateUp, y: inner })
        ops.linearBackward({ dy: d.dx, x: inner, ...own('down') })
        ops.rmsNorm({ y: normed, rstd: a.mlpRstd, x: a.mlpInput, weight: w.mlpNorm, eps })
        ops.linearBackward({ dx: dNormed, dy: a.gateUp, x: normed, ...own('gateUp') })
        const mlpNorm = { x: a.mlpInput, weight: w.mlpNorm, rstd: a.mlpRstd, ...norm(g?.mlpNorm) }
        ops.rmsNormBackward({ dx: d.dx, dy: dNormed, dResidual: d.dx, ...mlpNorm })

        ops.linearBackward({ dx: d.attnOut, dy: d.dx, x: a.attnOut, ...own('o') })
        const forward = { out: a.attnOut, q: a.q, k, v, lse: a.lse!, plan, heads, kvHeads, headDim }
        ops.attentionBackward({ dq: d.q, dk: dKv.k, dv: dKv.v, dOut: d.attnOut, ...forward, samePlan: plan === planned })
        planned = plan
      } else for (const zero of [dKv.k, dKv.v]) ops.fill(zero, 0)
      if (start > 0) for (const tensor of [gradientsOf.dx, gradientsOf.q]) ops.fill(tensor.rows(0, start), 0) // rows nobody asks for
      if (options.trunk) this.joinTrunk(dKv, l, options.trunk)

      const { dx } = gradientsOf
      const { normed, qkv: dqkv, delta: dNormed } = scratch
      const places = { positions: batch.positions, slots: batch.slots, rope, heads, kvHeads, headDim }
      ops.ropeStoreKvBackward({ dqkv, dq: gradientsOf.q, dk: dKv.k, dv: dKv.v, ...places })
      ops.rmsNorm({ y: normed, rstd: all.attnRstd, x: all.attnInput, weight: w.attnNorm, eps })
      const lowest = l === 0 && !gradients // a frozen embedding: nothing below asks for a gradient
      ops.linearBackward({ ...(!lowest && { dx: dNormed }), dy: dqkv, x: normed, ...own('qkv') })
      const attnNorm = { x: all.attnInput, weight: w.attnNorm, rstd: all.attnRstd, ...norm(g?.attnNorm) }
      if (!lowest) ops.rmsNormBackward({ dx, dy: dNormed, dResidual: dx, ...attnNorm })
    }
    if (gradients) ops.embedBackward({ dTable: gradients.embedding, dOut: gradientsOf.dx, ids: batch.ids })
  }

  /** logits [rows, vocab] of hidden states [rows, hidden]. */
  logits(hidden: Tensor, out: Tensor, head: Tensor = this.base.head): void {
    this.backend.ops.linear({ y: out, x: hidden, weight: head, decode: true })
  }

  /** Frees the weights. */
  close(): void {
    this.base.arena.close()
  }

  private layerBuffers(tokens: number, arena: Arena): LayerActivations {
    const { hidden, heads, headDim, inner } = this.config
    const rows = (width: number) => arena.tensor([tokens, width], this.activationType)
    return {
      attnInput: rows(hidden),
      attnRstd: arena.tensor([tokens]),
      q: rows(heads * headDim),
      attnOut: rows(heads * headDim),
      mlpInput: rows(hidden),
      mlpRstd: arena.tensor([tokens]),
      gateUp: rows(2 * inner),
      loras: { qkv: [], o: [], gateUp: [], down: [] },
    }
  }

  /** Inference: one set of buffers for all layers, the residual stream updated in place. */
  private sharedBuffers(tokens: number, arena: Arena): LayerActivations {
    const buffers = this.layerBuffers(tokens, arena)
    return { ...buffers, mlpInput: buffers.attnInput }
  }

  private scratch(tokens: number, arena: Arena): Scratch {
    const { hidden, inner } = this.config
    const rows = (width: number) => arena.tensor([tokens, width], this.activationType)
    return { normed: rows(hidden), qkv: rows(linearShapes(this.config).qkv.out), inner: rows(inner), delta: rows(hidden) }
  }

  private gradientBuffers(tokens: number, arena: Arena) {
    const { hidden, heads, headDim } = this.config
    const rows = (width: number) => arena.tensor([tokens, width], this.activationType)
    return { dx: rows(hidden), attnOut: rows(heads * headDim), q: rows(heads * headDim) }
  }

  /** In f32 everywhere: a trunk's are summed over many packs. */
  private kvGradients({ k, v }: KvStore, arena: Arena): KvStore {
    return { k: arena.tensor(k.shape), v: arena.tensor(v.shape) }
  }

  /** embedBackward adds rows to rows that are named by number: here each to its own. */
  private joinTrunk(d: KvStore, layer: number, { of, sums, rows }: TrunkGradient): void {
    const sum = sums[layer]!
    for (const side of ['k', 'v'] as const) {
      const own = d[side].rows(0, rows.shape[0]!)
      const [to, from] = of === 'pack' ? [sum[side], own] : [own, sum[side]]
      this.backend.ops.embedBackward({ dTable: to, dOut: from, ids: rows })
    }
  }
}

/** From which row on a layer is computed above its keys and values, and the attention of these rows. */
function liveRows({ live, plan }: Batch, lastLayer: boolean): LiveRows {
  return lastLayer && live ? live : { start: 0, plan }
}

/** A tensor's rows from `start` on. */
function tail(tensor: Tensor, start: number): Tensor {
  return start === 0 ? tensor : tensor.rows(start, tensor.shape[0]! - start)
}

/** The same buffers from row `start` on. */
function tails<Buffers extends object>(buffers: Buffers, start: number): Buffers {
  if (start === 0) return buffers
  const cut = (value: Tensor | object) => ('rows' in value ? tail(value as Tensor, start) : value)
  return Object.fromEntries(Object.entries(buffers).map(([name, value]) => [name, cut(value)])) as Buffers
}

/** The parts of the ranges that lie from row `start` on, numbered from there. */
function rowsFrom(ranges: readonly PolicyRows[], start: number): readonly PolicyRows[] {
  if (start === 0) return ranges
  return ranges.map(({ policy, rowStart, rowCount }) => {
    const first = Math.max(rowStart - start, 0)
    return { policy, rowStart: first, rowCount: Math.max(rowStart + rowCount - start - first, 0) }
  })
}

/** A norm's gradient as its backward takes it. */
function norm(dWeight: Tensor | undefined) {
  return dWeight ? { dWeight } : {}
}

/** A linear's gradients as its backward takes them. */
function linear(gradient: LinearParts<Tensor> | undefined) {
  if (!gradient) return {}
  return { dWeight: gradient.weight, ...(gradient.bias && { dBias: gradient.bias }) }
}

/** The policies' adapters on one linear, each with room for x Aᵀ. */
function loraSlices(
  layer: number,
  linear: FusedLinear,
  policies: readonly PolicyRows[],
  options: ForwardOptions,
): LoraGradSlice[] {
  return matricesOf(layer, linear, policies, options).map(({ rowStart, rowCount, matrix }) => {
    const xa = options.arena.tensor([rowCount, matrix.parts.length * matrix.rank])
    return { rowStart, rowCount, xa, ...matrix }
  })
}

/** The adapters of a linear that rows of the pass are under. */
function matricesOf(
  layer: number,
  linear: FusedLinear,
  policies: readonly PolicyRows[],
  { loras }: Pick<ForwardOptions, 'loras'>,
) {
  return policies.flatMap(({ policy, rowStart, rowCount }) => {
    const matrix = loras(policy).matrix(layer, linear)
    return matrix === null || rowCount === 0 ? [] : [{ rowStart, rowCount, matrix }]
  })
}
