// Is a written model the policy? Both are asked the same: the policy answers a few prompts, and over prompts and answers every logit
// is compared. All in f32, so that what differs is what was written.

import type { Engine } from '../engine/engine'
import type { LocalEngine } from '../engine/local-engine'
import { ModelError } from '../errors'

/** A policy's answers and what it thought at every token. */
export interface Answers {
  readonly sequences: readonly (readonly number[])[]
  readonly completions: readonly (readonly number[])[]
  readonly logits: readonly Float32Array[] // each [tokens, vocab]
}

export interface ExportCheck {
  readonly tokens: number
  /** Largest difference of two logits of the same token at the same place. */
  readonly largestGap: number
  /** KL(policy ‖ written), nats a token. */
  readonly meanKl: number
  /** Share of places where both rate the same token highest. */
  readonly sameTop: number
  /** Prompts, and how many of them both answer greedily with the same tokens. */
  readonly prompts: number
  readonly sameAnswers: number
}

const ANSWER_TOKENS = 32

/** Greedy answers, and the logits over prompt and answer. */
export async function askPolicy(
  engine: LocalEngine,
  policy: string | null,
  { prompts, stopTokenIds }: { readonly prompts: readonly (readonly number[])[]; readonly stopTokenIds: readonly number[] },
): Promise<Answers> {
  const completions = await greedy(engine, policy, { prompts, stopTokenIds })
  const sequences = prompts.map((prompt, i) => [...prompt, ...completions[i]!])
  const logits: Float32Array[] = []
  for (const sequence of sequences) logits.push(await engine.logits(policy, sequence))
  return { sequences, completions, logits }
}

/** The written model, loaded in `engine`, against the policy's answers. */
export async function compareWritten(
  engine: LocalEngine,
  policy: string | null,
  { prompts, stopTokenIds, wanted }: Parameters<typeof askPolicy>[2] & { readonly wanted: Answers },
): Promise<ExportCheck> {
  const completions = await greedy(engine, policy, { prompts, stopTokenIds })
  const totals = { tokens: 0, largestGap: 0, kl: 0, sameTop: 0 }
  for (const [i, sequence] of wanted.sequences.entries())
    addLogits(totals, wanted.logits[i]!, await engine.logits(policy, sequence), sequence.length)
  const same = completions.filter((tokens, i) => String(tokens) === String(wanted.completions[i]))
  const { tokens, largestGap, kl, sameTop } = totals
  return {
    ...{ tokens, largestGap, meanKl: kl / tokens, sameTop: sameTop / tokens },
    ...{ prompts: prompts.length, sameAnswers: same.length },
  }
}

/** @throws ModelError when the written model is further from the policy than its numbers' rounding explains */
export function requireLikeness(check: ExportCheck, limit: number, what: string): void {
  if (check.meanKl <= limit) return // a NaN is not
  throw new ModelError(
    `${what} is not the policy: its logits are up to ${check.largestGap.toPrecision(3)} away, ${check.meanKl.toPrecision(3)} nats a token (at most ${limit} is expected).`,
  )
}

async function greedy(
  engine: Engine,
  policy: string | null,
  { prompts, stopTokenIds }: Parameters<typeof askPolicy>[2],
): Promise<(readonly number[])[]> {
  const sampling = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 }
  const ask = (prompt: readonly number[]) =>
    engine.generate({ policy, prompt, seeds: [0], maxNewTokens: ANSWER_TOKENS, sampling, stopTokenIds })
  return (await Promise.all(prompts.map(ask))).map(([completion]) => completion!.tokens)
}

function addLogits(
  totals: { tokens: number; largestGap: number; kl: number; sameTop: number },
  wanted: Float32Array,
  got: Float32Array,
  tokens: number,
): void {
  const vocab = wanted.length / tokens
  for (let at = 0; at < wanted.length; at += vocab) {
    const [a, b] = [wanted.subarray(at, at + vocab), got.subarray(at, at + vocab)]
    const [normA, normB] = [logSum(a), logSum(b)]
    let [topA, topB] = [0, 0]
    for (let i = 0; i < vocab; i++) {
      const gap = Math.abs(a[i]! - b[i]!)
      if (!(gap <= totals.largestGap)) totals.largestGap = gap
      totals.kl += Math.exp(a[i]! - normA) * (a[i]! - normA - (b[i]! - normB))
      if (a[i]! > a[topA]!) topA = i
      if (b[i]! > b[topB]!) topB = i
    }
    totals.tokens++
    if (topA === topB) totals.sameTop++
  }
}

function logSum(row: Float32Array): number {
  const largest = row.reduce((a, b) => Math.max(a, b), -Infinity)
  return largest + Math.log(row.reduce((sum, value) => sum + Math.exp(value - largest), 0))
}
