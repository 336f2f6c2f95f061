// What is trained, whichever way: an adapter on the frozen base (lora.ts) or a copy of all weights (full-weights.ts). The optimizer, the
// trainer and inference know policies by this alone.

import type { LoraSpec } from './engine'
import type { FusedLinear } from './linears'
import type { ModelParts } from './model-weights'
import type { Backend, LoraGradSlice, Tensor } from './ops/ops'

/** The adapter on one fused linear: a LoraGradSlice without its rows. */
export type LoraMatrix = Omit<LoraGradSlice, 'rowStart' | 'rowCount' | 'xa'>

/** What is trained, always in the same order. All four have one shape. */
export interface Trainable {
  readonly param: Tensor
  readonly grad: Tensor
  readonly m: Tensor
  readonly v: Tensor
}

/** Trainables that lie one behind the other, as one: what the optimizer does to each value alone it does to all of them in one call. */
export interface Stretch extends Trainable {
  /** Matrices decay; norms and biases keep their values. */
  readonly decays: boolean
}

/** Weights that take the place of the base's, and where their gradients are summed. */
export interface OwnModel {
  readonly weights: ModelParts<Tensor>
  readonly gradients: ModelParts<Tensor>
}

export interface PolicyWeights {
  readonly backend: Backend
  /** Null: all weights are trained. */
  readonly spec: LoraSpec | null
  /** To be asked only: `trainables` have no gradients and no moments of their own. */
  readonly frozen: boolean
  /** Optimizer updates made so far. */
  step: number
  /** +1 per update; stays with the checkpoint. */
  policyVersion: number
  readonly trainables: readonly Trainable[]
  /** The same values in as few pieces as can be. */
  readonly stretches: readonly Stretch[]
  /** Number of trained values. */
  readonly parameters: number
  /** Null: the policy runs over the base's weights. */
  readonly own: OwnModel | null
  /** The adapter on one linear, null where there is none. */
  matrix(layer: number, linear: FusedLinear): LoraMatrix | null
  zeroGradients(): void
  close(): void
}
