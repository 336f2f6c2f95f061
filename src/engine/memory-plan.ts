// What of the engine's memory is left for a training pass.

import { totalmem } from 'node:os'
import { linearShapes } from './linears'
import type { ModelConfig } from './model-config'
import type { Precision } from './ops/ops'

/** The whole process is to stay below this while it trains a small model. */
const MEMORY_BYTES = 1536 * 1024 ** 2
/** Node and the server, the adapter with its gradients and moments, keys and values of rollouts, buffers of inference. */
const REST_BYTES = 576 * 1024 ** 2
/** Less makes packs so small that products lose. */
const LEAST_BYTES = 256 * 1024 ** 2

/**
 * On a GPU, but no less than the weights have: products there are fast from a few thousand rows on, and whatever else runs wants memory too.
 * Qwen2.5-7B's shape on an H200, 6,112 rows: 380 ms in eight packs (4 GiB), 336 in four, 327 in two (13.3 GiB), 314 in one (18.6).
 */
const DEVICE_BYTES = 4 * 1024 ** 3
/**
 * What weights and activations take there together where that leaves activations more: a small model's packs gain most by their size (pack-plan.ts).
 * A step of the tutorial's size with Qwen2.5-1.5B's shape then comes in two packs, with all else that the engine takes in less than 10 GiB.
 */
const DEVICE_BYTES_WITH_WEIGHTS = 7 * 1024 ** 3

interface MemoryWishes {
  readonly precision: Precision
  /** Of the whole process, weights included. */
  readonly memory?: number | undefined
  /** A device's own memory, the weights in it already. */
  readonly device?: { readonly free: number } | null
}

/**
 * Bytes that activations may take: what frozen weights and the rest leave of `memory` (default: 1.5 GiB, at most half the machine's). On a GPU
 * 4 GiB, or where the weights are small what they leave of 7, or where they are large as much as they take; at most a third of what is free.
 */
export function planActivations(config: ModelConfig, options: MemoryWishes): number {
  if (options.device && options.memory === undefined) {
    const weights = weightBytes(config, options.precision)
    const wanted = Math.max(DEVICE_BYTES, DEVICE_BYTES_WITH_WEIGHTS - weights, weights)
    return Math.max(Math.min(wanted, options.device.free / 3), LEAST_BYTES)
  }
  const { precision, memory = Math.min(MEMORY_BYTES, totalmem() / 2) } = options
  return Math.max(memory - weightBytes(config, precision) - REST_BYTES, LEAST_BYTES)
}

/** Of the frozen base. */
export function weightBytes(config: ModelConfig, precision: Precision): number {
  const shapes = Object.values(linearShapes(config))
  const perLayer = shapes.reduce((sum, { in: inputs, out }) => sum + inputs * out, 0)
  const vocabulary = config.vocab * config.hidden * (config.tiedHead ? 1 : 2)
  return (precision === 'bf16' ? 2 : 4) * (config.layers * perLayer + vocabulary)
}
