// How many tokens a training pack holds.

import { linearShapes } from './linears'
import type { ModelConfig } from './model-config'
import type { Backend } from './ops/ops'

/**
 * A batch costs least in large packs: fewer repeat the shared prompt, and on a GPU each is a thousand launches. On a CPU measured with a model of 1.5M
 * parameters, though a smaller pack's activations stay in the cache; on an H200 with SmolLM2-135M's shape, 512 rollouts of 64 prompts: 127.9 ms in packs of
 * 8,192 rows, 124.6 of 11,000, 118.1 of 16,384.
 */
const MAX_PACK_TOKENS: Readonly<Record<Backend['device'], number>> = { cpu: 8192, tfjs: 8192, cuda: 16_384 }
const MIN_PACK_TOKENS = 256
/** x Aᵀ of rank 16 on all linears of a layer. */
const ADAPTER_VALUES = 7 * 16

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
  const { layers, hidden, heads, kvHeads, headDim, inner } = config
  const { qkv } = linearShapes(config)
  const perLayer = 2 * hidden + 2 * heads * headDim + 2 * kvHeads * headDim + 2 * inner + 2 + heads + ADAPTER_VALUES
  const scratch = 7 * hidden + 2 * heads * headDim + 2 * qkv.out + 5 * inner
  const tokens = Math.floor(bytes / (valueBytes * (layers * perLayer + scratch)))
  return Math.max(MIN_PACK_TOKENS, Math.min(MAX_PACK_TOKENS[device], tokens))
}
