// Models for what the host alone takes: their layers and heads are the real ones', how wide they are decides nothing here but the time to make weights.

import { planActivations } from '../src/engine/memory-plan'
import type { ModelConfig } from '../src/engine/model-config'
import { planPackTokens } from '../src/engine/pack-plan'
import { H200_FREE_BYTES } from './_gpu-work'

export function narrow(config: ModelConfig): ModelConfig {
  return { ...config, hidden: 64, inner: 64, vocab: 4096 }
}

/** What an H200 leaves for activations of the real one, and rows of its packs. */
export function packsOnH200(config: ModelConfig): { readonly activationBytes: number; readonly packTokens: number } {
  const activationBytes = planActivations(config, { precision: 'bf16', device: { free: H200_FREE_BYTES } })
  return { activationBytes, packTokens: planPackTokens(config, activationBytes, { device: 'cuda', valueBytes: 2 }) }
}
