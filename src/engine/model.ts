// A decoder of the Llama family, written once over the ops. `forward` is a straight list of calls, `backward` the same list from
// the bottom up; there is no graph and no autograd. Dimension words: tokens, hidden, heads, kvHeads, headDim, inner, vocab.

import type { Batch, KvStore } from './batch'
import { FUSED_LINEARS, type FusedLinear, linearShapes } from './linears'
import type { ModelConfig } from './model-config'
import { type LinearParts, loadModelWeights, type ModelParts, type ModelWeights } from './model-weights'
import type { Arena, Backend, LoraGradSlice, Tensor } from './ops/ops'
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
  readonly gateUp: Tensor // [tokens, 2 * inner]
  readonly loras: Record<FusedLinear, readonly LoraGradSlice[]>
}

/** All that `backward` needs of a forward pass. */
export interface Activations {
  readonly layers: readonly LayerActivations[]
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
}

export interface BackwardOptions {
  readonly arena: Arena
  readonly saved: Activations
  readonly dHidden: Tensor // [tokens, hidden]
  /** The forward pass's. */
  readonly weights?: ModelParts<Tensor>
  /** Where the gradients of `weights` are added; without it they are not computed. */
  readonly gradients?: ModelParts<Tensor>
}

/** Buffers that live within a layer. */
interface Scratch {
  readonly normed: Tensor // [tokens, hidden]
  readonly qkv: Tensor // [tokens, (heads + 2 kvHeads) * headDim]
  readonly inner: Tensor // [tokens, inner]
  readonly delta: Tensor // [tokens, hidden]: what a half block adds to the residual stream
}

export class Model {
  private constructor(
    private readonly backend: Backend,
    readonly config: ModelConfig,
    private readonly base: ModelWeights,
  ) {}

  /** Reads all weights onto the device. Throws ModelError naming a weight that is missing or has another shape. */
  static load(backend: Backend, open: OpenModel): Model {
    return new Model(backend, open.config, loadModelWeights(backend, open))
  }

  /** [vocab, hidden] of the base; for the `logprob` op. */
  get head(): Tensor {
    return this.base.head
  }

  /** Parameters of the base, a tied head counted once. */
  get parameters(): number {
    return this.base.parameters
  }

  /** Room for keys and values of `slots` tokens, one store per layer. */
  kvStores(slots: number, arena: Arena): KvStore[] {
    const width = this.config.kvHeads * this.config.headDim
    return this.base.layers.map(() => ({ k: arena.tensor([slots, width]), v: arena.tensor([slots, width]) }))
  }

  /** Room for what `backward` needs of `tokens` rows. */
  activations(tokens: number, arena: Arena): Activations {
    const layers = this.base.layers.map(() => ({
      ...this.layerBuffers(tokens, arena),
      lse: arena.tensor([tokens, this.config.heads]),
    }))
    return { layers, finalInput: arena.tensor([tokens, this.config.hidden]), finalRstd: arena.tensor([tokens]) }
  }

  /** The final normed hidden states [tokens, hidden]. Keys and values of the batch are written to its slots of `kv`. */
  forward(batch: Batch, kv: readonly KvStore[], options: ForwardOptions): Tensor {
    const { ops } = this.backend
    const { arena, saved } = options
    const { rope } = this.base
    const { embedding, layers, finalNorm } = options.weights ?? this.base
    const { heads, kvHeads, headDim, normEps: eps } = this.config
    const { normed, qkv, inner, delta } = this.scratch(batch.tokens, arena)
    const shared = saved ? null : this.sharedBuffers(batch.tokens, arena)
    const mark = arena.mark()

    let x = (saved?.layers[0] ?? shared!).attnInput
    ops.embed({ out: x, table: embedding, ids: batch.ids })
    for (const [l, w] of layers.entries()) {
      const a = saved?.layers[l] ?? shared!
      const { k, v } = kv[l]!
      for (const linear of FUSED_LINEARS) a.loras[linear] = loraSlices(l, linear, batch, options)

      const carried = l === 0 ? {} : { delta, sum: a.attnInput } // the layer below's output joins the stream here
      ops.rmsNorm({ y: normed, rstd: a.attnRstd, x, weight: w.attnNorm, eps, ...carried })
      ops.linear({ y: qkv, x: normed, ...w.qkv, loras: a.loras.qkv })
      ops.ropeStoreKv({ qkv, q: a.q, k, v, positions: batch.positions, slots: batch.slots, rope, heads, kvHeads, headDim })
      ops.attention({ out: a.attnOut, q: a.q, k, v, plan: batch.plan, heads, kvHeads, headDim, ...(a.lse && { lse: a.lse }) })
      ops.linear({ y: delta, x: a.attnOut, ...w.o, loras: a.loras.o })

      ops.rmsNorm({ y: normed, rstd: a.mlpRstd, x: a.attnInput, delta, sum: a.mlpInput, weight: w.mlpNorm, eps })
      ops.linear({ y: a.gateUp, x: normed, ...w.gateUp, loras: a.loras.gateUp })
      ops.swiglu({ y: inner, gateUp: a.gateUp })
      ops.linear({ y: delta, x: inner, ...w.down, loras: a.loras.down })

      x = a.mlpInput
      if (!saved) arena.reset(mark) // the layers' LoRA scratch
    }
    const final = saved ?? { finalInput: x, finalRstd: shared!.attnRstd }
    ops.rmsNorm({ y: normed, rstd: final.finalRstd, x, delta, sum: final.finalInput, weight: finalNorm, eps })
    return normed
  }

  /** Adds the gradient of every adapter that took part in the forward pass to its `da` and `db`, those of the weights to `gradients`. */
  backward(batch: Batch, kv: readonly KvStore[], options: BackwardOptions): void {
    const { ops } = this.backend
    const { saved, dHidden, arena, gradients } = options
    const { rope } = this.base
    const { layers, finalNorm } = options.weights ?? this.base
    const { heads, kvHeads, headDim, normEps: eps } = this.config
    const { normed, qkv: dqkv, inner, delta: dNormed } = this.scratch(batch.tokens, arena)
    const d = this.gradientBuffers(batch.tokens, arena)
    const { dx } = d

    const final = { x: saved.finalInput, weight: finalNorm, rstd: saved.finalRstd, ...norm(gradients?.finalNorm) }
    ops.rmsNormBackward({ dx, dy: dHidden, ...final })
    for (const [l, w] of [...layers.entries()].reverse()) {
      const a = saved.layers[l]!
      const g = gradients?.layers[l]
      const { k, v } = kv[l]!
      const own = (name: FusedLinear) => ({ weight: w[name].weight, loras: a.loras[name], ...linear(g?.[name]) })

      ops.swiglu({ y: inner, gateUp: a.gateUp })
      ops.linearBackward({ dx: d.inner, dy: dx, x: inner, ...own('down') })
      ops.swigluBackward({ dGateUp: d.gateUp, dy: d.inner, gateUp: a.gateUp })
      ops.rmsNorm({ y: normed, rstd: a.mlpRstd, x: a.mlpInput, weight: w.mlpNorm, eps })
      ops.linearBackward({ dx: dNormed, dy: d.gateUp, x: normed, ...own('gateUp') })
      const mlpNorm = { x: a.mlpInput, weight: w.mlpNorm, rstd: a.mlpRstd, ...norm(g?.mlpNorm) }
      ops.rmsNormBackward({ dx, dy: dNormed, dResidual: dx, ...mlpNorm })

      ops.linearBackward({ dx: d.attnOut, dy: dx, x: a.attnOut, ...own('o') })
      const forward = { out: a.attnOut, q: a.q, k, v, lse: a.lse!, plan: batch.plan, heads, kvHeads, headDim }
      ops.attentionBackward({ dq: d.q, dk: d.k, dv: d.v, dOut: d.attnOut, ...forward })
      const places = { positions: batch.positions, slots: batch.slots, rope, heads, kvHeads, headDim }
      ops.ropeStoreKvBackward({ dqkv, dq: d.q, dk: d.k, dv: d.v, ...places })
      ops.rmsNorm({ y: normed, rstd: a.attnRstd, x: a.attnInput, weight: w.attnNorm, eps })
      const last = l === 0 && !gradients // a frozen embedding: nothing below asks for a gradient
      ops.linearBackward({ ...(!last && { dx: dNormed }), dy: dqkv, x: normed, ...own('qkv') })
      const attnNorm = { x: a.attnInput, weight: w.attnNorm, rstd: a.attnRstd, ...norm(g?.attnNorm) }
      if (!last) ops.rmsNormBackward({ dx, dy: dNormed, dResidual: dx, ...attnNorm })
    }
    if (gradients) ops.embedBackward({ dTable: gradients.embedding, dOut: dx, ids: batch.ids })
  }

  /** logits [rows, vocab] of hidden states [rows, hidden]. */
  logits(hidden: Tensor, out: Tensor, head: Tensor = this.base.head): void {
    this.backend.ops.linear({ y: out, x: hidden, weight: head })
  }

  /** Frees the weights. */
  close(): void {
    this.base.arena.close()
  }

  private layerBuffers(tokens: number, arena: Arena): LayerActivations {
    const { hidden, heads, headDim, inner } = this.config
    return {
      attnInput: arena.tensor([tokens, hidden]),
      attnRstd: arena.tensor([tokens]),
      q: arena.tensor([tokens, heads * headDim]),
      attnOut: arena.tensor([tokens, heads * headDim]),
      mlpInput: arena.tensor([tokens, hidden]),
      mlpRstd: arena.tensor([tokens]),
      gateUp: arena.tensor([tokens, 2 * inner]),
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
    return {
      normed: arena.tensor([tokens, hidden]),
      qkv: arena.tensor([tokens, linearShapes(this.config).qkv.out]),
      inner: arena.tensor([tokens, inner]),
      delta: arena.tensor([tokens, hidden]),
    }
  }

  private gradientBuffers(tokens: number, arena: Arena) {
    const { hidden, heads, kvHeads, headDim, inner } = this.config
    return {
      dx: arena.tensor([tokens, hidden]),
      inner: arena.tensor([tokens, inner]),
      gateUp: arena.tensor([tokens, 2 * inner]),
      attnOut: arena.tensor([tokens, heads * headDim]),
      q: arena.tensor([tokens, heads * headDim]),
      k: arena.tensor([tokens, kvHeads * headDim]), // a pack's slots are its rows
      v: arena.tensor([tokens, kvHeads * headDim]),
    }
  }
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

/** The adapters of the batch's policies on one linear, each with room for x Aᵀ. */
function loraSlices(layer: number, linear: FusedLinear, batch: Batch, options: ForwardOptions): LoraGradSlice[] {
  const slices: LoraGradSlice[] = []
  for (const { policy, rowStart, rowCount } of batch.policies) {
    const matrix = options.loras(policy).matrix(layer, linear)
    if (matrix === null || rowCount === 0) continue
    const xa = options.arena.tensor([rowCount, matrix.parts.length * matrix.rank])
    slices.push({ rowStart, rowCount, xa, ...matrix })
  }
  return slices
}
