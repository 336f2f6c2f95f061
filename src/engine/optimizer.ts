// One optimizer update of a policy: the global norm of its gradients, clipping, AdamW.

import { ArborError } from '../errors'
import type { StepConfig } from './engine'
import type { Tensor } from './ops/ops'
import type { PolicyWeights } from './policy-weights'

/**
 * √Σ grad² over all of the policy's gradients, summed in one fixed order. `out` is a scratch tensor [1].
 * Throws ArborError when the norm is not a number: nothing was changed then.
 */
export async function gradientNorm(weights: PolicyWeights, out: Tensor): Promise<number> {
  const { ops } = weights.backend
  ops.fill(out, 0)
  for (const { grad } of weights.stretches) ops.sumSquares({ out, x: grad })
  const norm = Math.sqrt((await weights.backend.download(out))[0]!)
  if (!Number.isFinite(norm))
    throw new ArborError(`The gradient's norm is ${norm}; no update was made. A lower learning rate is the usual cure.`)
  return norm
}

/** AdamW with weight decay, decoupled, on matrices alone (norms and biases keep theirs); gradients above `maxGradNorm` are scaled down to it, as torch's clip_grad_norm_ does. */
export function updateWeights(weights: PolicyWeights, gradNorm: number, config: StepConfig): void {
  const { learningRate, beta1, beta2, eps, weightDecay, maxGradNorm } = config
  const gradScale = maxGradNorm > 0 ? Math.min(1, maxGradNorm / (gradNorm + 1e-6)) : 1
  const rates = { learningRate, beta1, beta2, eps, gradScale, step: weights.step + 1 }
  for (const { param, grad, m, v, decays } of weights.stretches)
    weights.backend.ops.adamw({ param, grad, m, v, ...rates, weightDecay: decays ? weightDecay : 0 })
  weights.step++ // an update that the device refused is none
  weights.policyVersion++
}
