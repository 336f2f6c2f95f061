// Which examples a step works on, and the seed of every rollout: both follow from (seed, step) alone, so a resumed run goes on as if nothing happened.

import { hash } from 'node:crypto'

/**
 * The indices of step `step` (from 0) out of `size` examples, `batch` of them: each example once an epoch, in an order shuffled anew
 * every epoch. Steps run on over the border of two epochs, so nothing is dropped; a step there may meet an example twice.
 */
export function stepExamples(options: { size: number; batch: number; step: number; seed: number }): number[] {
  const { size, batch, step, seed } = options
  const out: number[] = []
  for (let k = step * batch; out.length < batch; k++) out.push(epochOrder(size, Math.floor(k / size), seed)[k % size]!)
  return out
}

/** The order made last: every place of every step of an epoch asks for it, and it takes a hash for each example. */
let latest: { readonly of: string; readonly order: readonly number[] } = { of: '', order: [] }

function epochOrder(size: number, epoch: number, seed: number): readonly number[] {
  const of = JSON.stringify([size, epoch, seed])
  if (latest.of !== of) latest = { of, order: shuffled(size, epoch, seed) }
  return latest.order
}

function shuffled(size: number, epoch: number, seed: number): number[] {
  const order = Array.from({ length: size }, (_, i) => i)
  const key = new Map(order.map((i) => [i, seedOf(seed, 'epoch', epoch, i)]))
  return order.sort((a, b) => key.get(a)! - key.get(b)! || a - b)
}

/** 52 bits of a hash of the parts: the seed of a rollout is seedOf(run seed, step, example, rollout, call). */
export function seedOf(...parts: readonly (string | number)[]): number {
  const digest = hash('sha256', JSON.stringify(parts), 'buffer')
  return digest.readUIntBE(0, 6) * 16 + (digest[6]! >> 4)
}
