// One LoRA adapter on the device: A and B of every targeted linear, their gradients and AdamW's moments, all in one arena.
// A fused linear (qkv, gateUp) stacks its members' A's and B's; a member that is not targeted keeps zeros in both, so it adds
// nothing, and gets no gradient either (dA needs B, dB needs A).

import { OptionError } from '../errors'
import { LORA_TARGETS, type LoraSpec, type LoraTarget } from './engine'
import { FUSED_LINEARS, type FusedLinear, linearShapes } from './linears'
import type { ModelConfig } from './model-config'
import type { Arena, Backend, Tensor } from './ops/ops'
import type { LoraMatrix, PolicyWeights, Stretch, Trainable } from './policy-weights'
import { uniforms } from './random'

/** A targeted module's share of the fused tensors, under peft's name ('…layers.0.self_attn.q_proj'). */
export interface LoraModule {
  readonly name: string
  readonly layer: number
  readonly target: LoraTarget
  readonly a: Trainable // [rank, in]
  readonly b: Trainable // [out, rank]
}

export class LoraWeights implements PolicyWeights {
  /** The base's weights stay as they are. */
  readonly own = null
  step = 0
  policyVersion = 0
  readonly trainables: readonly Trainable[]
  readonly stretches: readonly [Stretch]
  readonly modules: readonly LoraModule[]
  /** Trained values: A's and B's of the targeted modules. */
  readonly parameters: number
  private readonly layers: readonly Readonly<Record<FusedLinear, LoraMatrix | null>>[]
  private readonly arena: Arena

  private constructor(
    readonly backend: Backend,
    readonly spec: LoraSpec,
    config: ModelConfig,
    readonly frozen = false,
  ) {
    checkSpec(spec)
    const built = new Builder(backend, { ...spec, frozen }, config)
    this.arena = built.arena
    this.layers = Array.from({ length: config.layers }, (_, l) => built.layer(l))
    this.trainables = built.trainables
    this.stretches = [built.whole]
    this.modules = built.modules
    this.parameters = this.modules.reduce((sum, { a, b }) => sum + size(a.param) + size(b.param), 0)
    const { param, grad, m, v } = built.whole
    for (const all of new Set([param, grad, m, v])) backend.ops.fill(all, 0)
  }

  /** All zeros: for a checkpoint to be loaded into. */
  static empty(backend: Backend, config: ModelConfig, { frozen, ...spec }: LoraSpec & { frozen?: boolean }): LoraWeights {
    return new LoraWeights(backend, spec, config, frozen)
  }

  /**
   * A new adapter: A uniform in ±1/√in (what peft's kaiming_uniform with a = √5 comes to), B zero, so the policy equals the base.
   * A module's values depend on the seed and its own place only, not on which others are targeted.
   */
  static fresh(backend: Backend, config: ModelConfig, options: { spec: LoraSpec; seed: number }): LoraWeights {
    const weights = new LoraWeights(backend, options.spec, config)
    for (const { layer, target, a } of weights.modules) {
      const random = uniforms(options.seed, layer * LORA_TARGETS.length + LORA_TARGETS.indexOf(target))
      const bound = 1 / Math.sqrt(a.param.shape[1]!)
      const values = Float32Array.from({ length: size(a.param) }, () => (2 * random() - 1) * bound)
      backend.upload(a.param, values)
    }
    return weights
  }

  /** Null where no member is targeted. */
  matrix(layer: number, linear: FusedLinear): LoraMatrix | null {
    return this.layers[layer]![linear]
  }

  zeroGradients(): void {
    this.backend.ops.fill(this.stretches[0].grad, 0)
  }

  close(): void {
    this.arena.close()
  }
}

/**
 * Carves the fused tensors and their modules' views out of one arena: first all A's and B's, behind them all their gradients, then the moments, so
 * that each of the four is one tensor as well. What lies between two for alignment is zero, and stays zero.
 */
class Builder {
  readonly arena: Arena
  readonly trainables: readonly Trainable[]
  readonly whole: Stretch
  readonly modules: LoraModule[] = []
  private readonly shapes
  private taken = 0

  constructor(
    backend: Backend,
    private readonly spec: LoraSpec & { readonly frozen: boolean },
    config: ModelConfig,
  ) {
    this.shapes = linearShapes(config)
    const all = Array.from({ length: config.layers }, () => FUSED_LINEARS.flatMap((linear) => this.shapesOf(linear))).flat()
    const copies = spec.frozen ? 1 : 4
    this.arena = backend.arena(copies * all.reduce((bytes, shape) => bytes + 64 * Math.ceil((4 * shape[0] * shape[1]) / 64), 0))
    const param = this.side(all)
    const [grad, m, v] = spec.frozen ? [param, param, param] : [this.side(all), this.side(all), this.side(all)]
    this.whole = { param: param.whole, grad: grad.whole, m: m.whole, v: v.whole, decays: true }
    this.trainables = param.parts.map((one, i) => ({ param: one, grad: grad.parts[i]!, m: m.parts[i]!, v: v.parts[i]! }))
  }

  /** Of the fused A and B; none where no member is targeted. */
  private shapesOf(linear: FusedLinear): (readonly [number, number])[] {
    const { rank, targets } = this.spec
    const { members, in: inputs, out } = this.shapes[linear]
    if (!members.some(({ target }) => targets.includes(target))) return []
    return [
      [members.length * rank, inputs],
      [out, rank],
    ]
  }

  /** A tensor of each shape, one behind the other, and all of them as one. */
  private side(shapes: readonly (readonly [number, number])[]): { parts: Tensor[]; whole: Tensor } {
    const { arena } = this
    const start = arena.mark()
    const parts = shapes.map((shape) => arena.tensor(shape))
    const length = (arena.mark() - start) / 4
    arena.reset(start)
    return { parts, whole: arena.tensor([length]) }
  }

  layer(l: number): Record<FusedLinear, LoraMatrix | null> {
    return Object.fromEntries(FUSED_LINEARS.map((linear) => [linear, this.matrix(l, linear)])) as Record<
      FusedLinear,
      LoraMatrix | null
    >
  }

  private matrix(layer: number, linear: FusedLinear): LoraMatrix | null {
    const { rank, alpha, targets } = this.spec
    const shape = this.shapes[linear]
    if (this.shapesOf(linear).length === 0) return null
    const a = this.trainables[this.taken++]!
    const b = this.trainables[this.taken++]!
    let row = 0
    for (const [i, { target, path, out }] of shape.members.entries()) {
      const name = `base_model.model.model.layers.${layer}.${path}`
      const views = { a: rowsOf(a, i * rank, rank), b: rowsOf(b, row, out) }
      if (targets.includes(target)) this.modules.push({ name, layer, target, ...views })
      row += out
    }
    const parts = shape.members.map(({ out }) => out)
    return { a: a.param, b: b.param, da: a.grad, db: b.grad, parts, rank, scale: alpha / rank }
  }
}

function rowsOf({ param, grad, m, v }: Trainable, start: number, count: number): Trainable {
  return { param: param.rows(start, count), grad: grad.rows(start, count), m: m.rows(start, count), v: v.rows(start, count) }
}

function checkSpec({ rank, alpha, targets }: LoraSpec): void {
  if (!Number.isInteger(rank) || rank < 1) throw new OptionError(`LoRA rank is ${rank}; it must be a whole number from 1 up.`)
  if (!Number.isFinite(alpha)) throw new OptionError(`lora_alpha is ${alpha}; it must be a number.`)
  const unknown = targets.find((target) => !LORA_TARGETS.includes(target))
  if (unknown !== undefined || targets.length === 0)
    throw new OptionError(`LoRA targets [${targets}] must be one or more of ${LORA_TARGETS.join(', ')}.`)
}

function size(tensor: Tensor): number {
  return tensor.shape.reduce((product, n) => product * n, 1)
}
