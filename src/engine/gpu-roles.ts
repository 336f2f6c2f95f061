// Which of several engines train a policy, and which sample from it.

import type { GpuSplit } from './engine'

export interface Roles {
  readonly training: readonly number[]
  readonly inference: readonly number[]
  /** No engine does both. */
  readonly apart: boolean
}

/** Samplers and trainers work in turn, so all engines at both are the fastest. */
export function ALL_DO_BOTH(count: number): Roles {
  const all = Array.from({ length: count }, (_, i) => i)
  return { training: all, inference: all, apart: false }
}

/**
 * The wish, where there are as many engines as it asks for: the first ones sample, those behind them train. Else all do both; so they do when one and one are
 * asked for, which is what Arbor's clients send when nobody asks for anything.
 */
export function splitRoles(count: number, wish: GpuSplit | undefined): Roles {
  const { training = 0, inference = 0 } = wish ?? {}
  const asked = training > 0 && inference > 0 && training + inference > 2
  if (!asked || training + inference > count) return ALL_DO_BOTH(count)
  const all = Array.from({ length: count }, (_, i) => i)
  return { inference: all.slice(0, inference), training: all.slice(inference, inference + training), apart: true }
}
