// A policy that trains all weights: its own f32 copy of the model, with gradients and AdamW's moments, all in one arena. Matrices lie
// plain, [out, in], as the optimizer changes them in place. A tied head is the embedding: both gradients are summed in one tensor.

import type { ModelConfig } from './model-config'
import { type ModelParts, modelParts, readStack, type Stack } from './model-weights'
import type { Arena, Backend, Tensor } from './ops/ops'
import type { OwnModel, PolicyWeights, Trainable } from './policy-weights'
import type { OpenModel, WeightFile } from './weights'

/** One fused tensor and the checkpoint's weights that it stacks. */
export interface StackedTrainable extends Trainable {
  readonly stack: Stack
}

export class FullWeights implements PolicyWeights {
  readonly spec = null
  step = 0
  policyVersion = 0
  readonly trainables: readonly StackedTrainable[]
  readonly parameters: number
  readonly own: OwnModel
  private readonly arena: Arena

  private constructor(
    readonly backend: Backend,
    config: ModelConfig,
    file: WeightFile,
  ) {
    const trainables: StackedTrainable[] = []
    this.arena = backend.arena(1 << 20) // grows
    const take = (stack: Stack): StackedTrainable => {
      const values = readStack(file, stack)
      const shape = stack.columns === null ? [values.length] : [values.length / stack.columns, stack.columns]
      const [param, grad, m, v] = [0, 1, 2, 3].map(() => this.arena.tensor(shape)) as [Tensor, Tensor, Tensor, Tensor]
      backend.upload(param, values)
      for (const state of [grad, m, v]) backend.ops.fill(state, 0)
      trainables.push({ stack, param, grad, m, v })
      return trainables.at(-1)!
    }
    const parts = this.orFree(() => modelParts(config, file, take))
    this.trainables = trainables
    this.parameters = trainables.reduce((sum, { param }) => sum + param.shape.reduce((n, size) => n * size, 1), 0)
    this.own = { weights: pick(parts, 'param'), gradients: pick(parts, 'grad') }
  }

  /** A copy of the file's weights, with fresh moments. Throws ModelError naming a weight that is missing or of another shape. */
  static read(backend: Backend, { config, weights }: OpenModel): FullWeights {
    return new FullWeights(backend, config, weights)
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
