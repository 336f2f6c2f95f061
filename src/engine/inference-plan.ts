// What inference takes of a device: how many tokens' keys and values, how many rows and sequences in one pass, and the bytes that come of it.
// Training's share is planned in memory-plan.ts.

import type { BatchLimits } from './batch-plan'
import type { ModelConfig } from './model-config'
import { DTYPE_BYTES } from './ops/arena'
import type { Backend } from './ops/ops'

export interface InferenceLimits extends BatchLimits {
  /** Tokens whose keys and values fit into the cache. */
  readonly slots: number
  /** As many are used without a second thought; beyond, what is only cached makes way first. */
  readonly roomySlots: number
}

export interface InferenceWishes {
  readonly kvCacheTokens?: number
  readonly batchTokens?: number
  readonly batchSequences?: number
}

/** What a kind of device can afford. */
interface Budget {
  readonly kvBytes: number
  readonly roomyKvBytes: number
  readonly tokens: number
  readonly sequences: number
  /** For the logits of all sequences. */
  readonly logitBytes: number
}

const MIB = 1024 ** 2
const HOST: Budget = {
  kvBytes: 512 * MIB,
  roomyKvBytes: 128 * MIB,
  tokens: 1024,
  sequences: 64,
  logitBytes: Number.POSITIVE_INFINITY,
}
/** TensorFlow.js passes whole stores into its ops, so a large one costs at every step. */
const TFJS_SLOTS = 4096
/** Of a GPU's memory that is free once the weights are there, what keys and values may take at most. */
const KV_SHARE = 0.4

/**
 * What inference takes unless told otherwise. On a CPU up to half a GiB of keys and values (on tfjs less), 1024 rows and 64 sequences at once; on a
 * GPU up to two fifths of what is free, as far as it is needed, 4096 rows and 512 sequences, fewer where the vocabulary is large.
 */
export function planInference(
  config: ModelConfig,
  options: InferenceWishes & Pick<Backend, 'device'> & Partial<Pick<Backend, 'activations' | 'memory'>>,
): InferenceLimits {
  const budget = budgetOf(options)
  const bytesPerSlot = slotBytes(config, options.activations ?? 'f32')
  const affordable = options.device === 'tfjs' ? TFJS_SLOTS : Math.floor(budget.kvBytes / bytesPerSlot)
  const held = Math.max(1, Math.min(budget.sequences, Math.floor(budget.logitBytes / (4 * config.vocab))))
  const sequences = options.batchSequences ?? held
  const slots = options.kvCacheTokens ?? Math.min(affordable, sequences * config.contextLength)
  const tokens = Math.max(options.batchTokens ?? budget.tokens, sequences)
  const roomySlots = Math.min(slots, Math.ceil(budget.roomyKvBytes / bytesPerSlot))
  return {
    slots,
    roomySlots,
    tokens,
    sequences,
    context: Math.min(sequences * Math.min(config.contextLength, slots), MOST_CONTEXT),
  }
}

/** Entries of all sequences' contexts in one pass: an array of the host's as well. */
const MOST_CONTEXT = 1 << 24

function budgetOf({ device, memory }: Pick<Backend, 'device'> & Partial<Pick<Backend, 'memory'>>): Budget {
  const own = device === 'cuda' ? memory?.() : null
  if (!own) return HOST
  return { kvBytes: KV_SHARE * own.free, roomyKvBytes: 256 * MIB, tokens: 4096, sequences: 512, logitBytes: 192 * MIB }
}

/** Keys and values of a token, in all layers. */
export function slotBytes({ layers, kvHeads, headDim }: ModelConfig, activations: Backend['activations']): number {
  return layers * 2 * kvHeads * headDim * DTYPE_BYTES[activations]
}

/** What a pass reads and answers, logits included. */
export function inputBytes({ vocab, hidden }: ModelConfig, { context, tokens, sequences }: InferenceLimits): number {
  const row = vocab + Math.ceil(vocab / 32) + hidden + 32
  return 4 * (2 * context + 3 * tokens + sequences * row) + 64 * 16
}

/** What lives within a pass. */
export function scratchBytes(
  { hidden, inner, heads, headDim }: ModelConfig,
  { tokens }: InferenceLimits,
  activations: Backend['activations'],
): number {
  return DTYPE_BYTES[activations] * tokens * (4 * hidden + 4 * inner + 4 * heads * headDim)
}

/** All that inference takes beside weights, keys and values. */
export function passBytes(config: ModelConfig, limits: InferenceLimits, activations: Backend['activations']): number {
  return inputBytes(config, limits) + scratchBytes(config, limits, activations)
}
