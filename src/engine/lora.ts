// One LoRA adapter on the device: A and B of every targeted linear, their gradients and AdamW's moments, all in one arena.
// A fused linear (qkv, gateUp) stacks its members' A's and B's; a member that is not targeted keeps zeros in both, so it adds
// nothing, and gets no gradient either (dA needs B, dB needs A).

import { OptionError } from '../errors'
import { LORA_TARGETS, type LoraSpec, type LoraTarget } from './engine'
import { FUSED_LINEARS, type FusedLinear, linearShapes } from './linears'
import type { ModelConfig } from './model-config'
import type { Arena, Backend, Tensor } from './ops/ops'
import type { LoraMatrix, PolicyWeights, Trainable } from './policy-weights'
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
    this.modules = built.modules
    this.parameters = this.modules.reduce((sum, { a, b }) => sum + size(a.param) + size(b.param), 0)
    for (const { param, grad, m, v } of this.trainables) for (const t of new Set([param, grad, m, v])) backend.ops.fill(t, 0)
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
    for (const { grad } of this.trainables) this.backend.ops.fill(grad, 0)
  }

  close(): void {
    this.arena.close()
  }
}

/** Carves the fused tensors and their modules' views out of one arena. */
class Builder {
  readonly arena: Arena
  readonly trainables: Trainable[] = []
  readonly modules: LoraModule[] = []
  private readonly shapes

  constructor(
    backend: Backend,
    private readonly spec: LoraSpec & { readonly frozen: boolean },
    config: ModelConfig,
  ) {
    this.shapes = linearShapes(config)
    let values = 0
    for (const linear of FUSED_LINEARS)
      values += spec.rank * (this.shapes[linear].members.length * this.shapes[linear].in + this.shapes[linear].out)
    const tensors = 8 * FUSED_LINEARS.length * config.layers // each aligned to 64 bytes
    this.arena = backend.arena((spec.frozen ? 1 : 4) * 4 * values * config.layers + 64 * tensors)
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
    if (!shape.members.some(({ target }) => targets.includes(target))) return null
    const a = this.trainable([shape.members.length * rank, shape.in])
    const b = this.trainable([shape.out, rank])
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

  private trainable(shape: readonly number[]): Trainable {
    const param = this.arena.tensor(shape)
    const state = () => (this.spec.frozen ? param : this.arena.tensor(shape))
    const trainable = { param, grad: state(), m: state(), v: state() }
    this.trainables.push(trainable)
    return trainable
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
