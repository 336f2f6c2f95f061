// What one forward pass works on: token rows and what they may see. Training packs and inference batches are the same thing.

import type { AttentionPlan, Tensor } from './ops/ops'

/** Rows of a batch that belong to one policy. Rows outside every range are the base's. */
export interface PolicyRows {
  readonly policy: string
  readonly rowStart: number
  readonly rowCount: number
}

/** Where keys and values of a layer live: the KV cache in inference, the pack's own activations in training. */
export interface KvStore {
  readonly k: Tensor // [slots, kvHeads * headDim]
  readonly v: Tensor
}

export interface Batch {
  readonly tokens: number
  readonly ids: Tensor // i32 [tokens]
  readonly positions: Tensor // i32 [tokens]
  readonly slots: Tensor // i32 [tokens]: row of the KvStore each token writes
  readonly plan: AttentionPlan
  readonly policies: readonly PolicyRows[]
  /** Each row is the newest token of a sequence of its own: no prompt is computed. */
  readonly decode?: boolean
  /** Default: all rows are asked for. */
  readonly live?: LiveRows
}

/** The rows that are asked for after the last layer, from `start` on. Those before them only serve others as keys and values. */
export interface LiveRows {
  readonly start: number
  /** Their attention, rows numbered from `start`. */
  readonly plan: AttentionPlan
}

/** The segments [count, 4] from row `start` on (none lies across it), rows numbered from there: the plan of LiveRows. */
export function liveSegments(segments: Int32Array, start: number): Int32Array {
  let first = 0
  while (first < segments.length && segments[first]! < start) first += 4
  const live = segments.slice(first)
  for (let s = 0; s < live.length; s += 4) live[s]! -= start
  return live
}
