// How many tokens a training pack holds.

import { linearShapes } from './linears'
import type { ModelConfig } from './model-config'
import { DTYPE_BYTES } from './ops/arena'
import type { Backend } from './ops/ops'

/**
 * A batch costs least in large packs: fewer repeat the shared prompt, and on a GPU each is a thousand launches. On a CPU measured with a model of 1.5M
 * parameters, though a smaller pack's activations stay in the cache; on an H200 with SmolLM2-135M's shape, 512 rollouts of 64 prompts: 127.9 ms in packs of
 * 8,192 rows, 124.6 of 11,000, 118.1 of 16,384.
 */
const MAX_PACK_TOKENS: Readonly<Record<Backend['device'], number>> = { cpu: 8192, tfjs: 8192, cuda: 16_384 }
const MIN_PACK_TOKENS = 256
/** Of the adapters that packs are planned for; others take as much more or less. */
const USUAL_RANK = 16

/**
 * Rows that a trunk must save: it is a pass of its own over all layers, and on a GPU the smallest pass takes as long as some hundred rows more
 * in another (Qwen2.5-1.5B on an H200: 8 ms, as 450 rows). A CPU's time goes with the rows.
 */
export const LEAST_SAVED: Readonly<Record<Backend['device'], number>> = { cpu: 0, tfjs: 0, cuda: 512 }

interface PackDevice {
  readonly device: Backend['device']
  readonly valueBytes: number
}

/** Rows (of a trunk and a pack together) whose activations fit into `bytes`, from 256 to the device's most. A longer sequence gets a pack of its own. */
export function planPackTokens(config: ModelConfig, bytes: number, { device, valueBytes }: PackDevice): number {
  const tokens = Math.floor(bytes / rowBytes(config, { valueBytes, rank: USUAL_RANK }))
  return Math.max(MIN_PACK_TOKENS, Math.min(MAX_PACK_TOKENS[device], tokens))
}

/** What a row of a pack takes from its forward pass to the end of its backward pass, under an adapter of this rank on all linears (model.ts has the tensors). */
export function rowBytes(
  config: ModelConfig,
  { valueBytes, rank }: { readonly valueBytes: number; readonly rank: number },
): number {
  const { layers, hidden, heads, kvHeads, headDim, inner } = config
  const { qkv } = linearShapes(config)
  const attention = heads * headDim
  const kv = 2 * kvHeads * headDim
  const kept = 2 * hidden + 2 * attention + 2 * inner + kv
  const keptInF32 = 2 + heads + 7 * rank
  const scratch = 2 * hidden + qkv.out + inner
  const gradients = 2 * hidden + 2 * attention
  const ids = 10
  return valueBytes * (layers * kept + hidden + scratch + gradients) + DTYPE_BYTES.f32 * (layers * keptInF32 + kv + ids)
}
