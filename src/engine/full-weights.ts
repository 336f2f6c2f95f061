// A policy that trains all weights: its own f32 copy of the model, with gradients and AdamW's moments, all in one arena. Matrices lie
// plain, [out, in], as the optimizer changes them in place. A tied head is the embedding: both gradients are summed in one tensor.

import { type ModelParts, modelParts, readStack, type Stack } from './model-weights'
import type { Arena, Backend, Tensor } from './ops/ops'
import type { OwnModel, PolicyWeights, Stretch, Trainable } from './policy-weights'
import type { OpenModel } from './weights'

/** One fused tensor and the checkpoint's weights that it stacks. */
export interface StackedTrainable extends Trainable {
  readonly stack: Stack
}

export class FullWeights implements PolicyWeights {
  readonly spec = null
  step = 0
  policyVersion = 0
  readonly trainables: readonly StackedTrainable[]
  readonly stretches: readonly Stretch[]
  readonly parameters: number
  readonly own: OwnModel
  private readonly arena: Arena

  private constructor(
    readonly backend: Backend,
    { config, weights: file }: OpenModel,
    readonly frozen: boolean,
  ) {
    const trainables: StackedTrainable[] = []
    this.arena = backend.arena(1 << 20) // grows
    const take = (stack: Stack): StackedTrainable => {
      const values = readStack(file, stack)
      const shape = stack.columns === null ? [values.length] : [values.length / stack.columns, stack.columns]
      const param = this.arena.tensor(shape)
      backend.upload(param, values)
      trainables.push({ stack, param, grad: this.state(param), m: this.state(param), v: this.state(param) })
      return trainables.at(-1)!
    }
    const parts = this.orFree(() => modelParts(config, file, take))
    this.trainables = trainables
    this.stretches = trainables.map(({ param, grad, m, v }) => ({ param, grad, m, v, decays: param.shape.length === 2 }))
    this.parameters = trainables.reduce((sum, { param }) => sum + param.shape.reduce((n, size) => n * size, 1), 0)
    this.own = { weights: pick(parts, 'param'), gradients: pick(parts, 'grad') }
  }

  /** A copy of the file's weights, with fresh moments. Throws ModelError naming a weight that is missing or of another shape. */
  static read(backend: Backend, open: OpenModel, { frozen = false } = {}): FullWeights {
    return new FullWeights(backend, open, frozen)
  }

  matrix(): null {
    return null
  }

  zeroGradients(): void {
    for (const { grad } of this.trainables) this.backend.ops.fill(grad, 0)
  }

  close(): void {
    this.arena.close()
  }

  private state(param: Tensor): Tensor {
    if (this.frozen) return param
    const tensor = this.arena.tensor(param.shape)
    this.backend.ops.fill(tensor, 0)
    return tensor
  }

  private orFree<Result>(build: () => Result): Result {
    try {
      return build()
    } catch (error) {
      this.arena.close()
      throw error
    }
  }
}

function pick(parts: ModelParts<Trainable>, field: 'param' | 'grad'): ModelParts<Tensor> {
  const linear = ({ weight, bias }: { weight: Trainable; bias?: Trainable }) => ({
    weight: weight[field],
    ...(bias && { bias: bias[field] }),
  })
  return {
    embedding: parts.embedding[field],
    head: parts.head[field],
    layers: parts.layers.map(({ qkv, o, gateUp, down, attnNorm, mlpNorm }) => ({
      qkv: linear(qkv),
      o: linear(o),
      gateUp: linear(gateUp),
      down: linear(down),
      attnNorm: attnNorm[field],
      mlpNorm: mlpNorm[field],
    })),
    finalNorm: parts.finalNorm[field],
  }
}
