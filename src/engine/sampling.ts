// The definition of sampling, in plain TypeScript: the `sample` op of every backend does exactly this, and is tested against it.

import type { SamplingParams } from './engine'

export interface SampledToken {
  readonly token: number
  readonly logprob: number // at T (T = 0 counts as 1), full vocabulary, before penalty and truncation
  readonly plainLogprob: number // at T = 1
}

/** How a row is sampled. */
export interface SampleParams extends SamplingParams {
  /** Tokens that may come, as a set of bits; null and undefined: all. */
  readonly allowed?: TokenMask | null
}

/** A set of tokens: bit t & 31 of word t >> 5 is token t. */
export type TokenMask = Int32Array

/** A mask of `vocab` tokens, none of them in it. */
export function emptyMask(vocab: number): TokenMask {
  return new Int32Array(Math.ceil(vocab / 32))
}

export function hasToken(mask: TokenMask, token: number): boolean {
  return ((mask[token >> 5]! >>> (token & 31)) & 1) === 1
}

export function addToken(mask: TokenMask, token: number): void {
  mask[token >> 5]! |= 1 << (token & 31)
}

export function removeToken(mask: TokenMask, token: number): void {
  mask[token >> 5]! &= ~(1 << (token & 31))
}

/**
 * A uniform number in [0, 1) with 24 bits from (seed, index of the token in its completion): splitmix64 of both.
 * Stateless, so a rollout never depends on what else was sampled.
 */
export function uniform(seed: number, index: number): number {
  const whole = Math.trunc(seed)
  multiply(z, Math.floor(whole / WORD) | 0, whole | 0, MULTIPLIERS[0])
  multiply(term, Math.floor(index / WORD) | 0, index | 0, MULTIPLIERS[1])
  add(z, term[0]!, term[1]!)
  add(z, 0x2545f491, 0x4f6cdd1d)
  mix(z, 30)
  multiply(z, z[0]!, z[1]!, MULTIPLIERS[2])
  mix(z, 27)
  multiply(z, z[0]!, z[1]!, MULTIPLIERS[3])
  mix(z, 31)
  return (z[0]! >>> 8) / 2 ** 24
}

/**
 * A number of 64 bits as its upper and lower half, in 32-bit arithmetic and in place: a step of many sequences draws hundreds, BigInt takes 20 times
 * as long, and a pair for each result was a third of a step's garbage.
 */
type Wide = Int32Array
const [z, term]: readonly [Wide, Wide] = [new Int32Array(2), new Int32Array(2)]
const WORD = 2 ** 32
const MULTIPLIERS = [
  [0x9e3779b9, 0x7f4a7c15],
  [0xd1342543, 0xde82ef95],
  [0xbf58476d, 0x1ce4e5b9],
  [0x94d049bb, 0x133111eb],
] as const

/** Modulo 2⁶⁴, of halves as integers of 32 bits: a fraction handed over would be an object each time. */
function multiply(to: Wide, high: number, low: number, factor: readonly [number, number]): void {
  const a1 = low >>> 16
  const a0 = low & 0xffff
  const b1 = factor[1] >>> 16
  const b0 = factor[1] & 0xffff
  const middle = a1 * b0 + ((a0 * b0) >>> 16)
  const carry = a0 * b1 + (middle & 0xffff)
  const upper = a1 * b1 + (middle >>> 16) + (carry >>> 16)
  const crossed = Math.imul(high, factor[1]) + Math.imul(low, factor[0])
  to[0] = (upper + crossed) | 0
  to[1] = Math.imul(low, factor[1])
}

function add(to: Wide, high: number, low: number): void {
  const sum = (to[1]! >>> 0) + (low >>> 0)
  to[0] = (to[0]! + high + (sum >= WORD ? 1 : 0)) | 0
  to[1] = sum | 0
}

/** z ^ (z >> bits), for bits below 32. */
function mix(to: Wide, bits: number): void {
  const high = to[0]!
  const low = to[1]!
  to[0] = high ^ (high >>> bits)
  to[1] = low ^ ((low >>> bits) | (high << (32 - bits)))
}

/**
 * Order: stored logprobs from the untouched logits → tokens that aren't allowed become impossible → repetition penalty (divide positive, multiply negative, as in Hugging Face)
 * → greedy if temperature is 0 (lowest id wins ties) → temperature → top-k → top-p over the kept → min-p relative to the best
 * → inverse CDF in order of token id at `u`. Candidates at a top-k or top-p border with equal logits: lower id first.
 */
export function sampleToken(logits: Float32Array, params: SampleParams, history: readonly number[], u: number): SampledToken {
  const temperature = params.temperature > 0 ? params.temperature : 1
  const lseT = logSumExp(logits, temperature)
  const lse1 = temperature === 1 ? lseT : logSumExp(logits, 1)
  const penalised = params.repetitionPenalty === 1 && !params.allowed ? logits : Float32Array.from(logits)
  if (params.allowed) for (const token of penalised.keys()) if (!hasToken(params.allowed, token)) penalised[token] = -Infinity
  if (params.repetitionPenalty !== 1)
    for (const token of new Set(history)) {
      const value = penalised[token]!
      penalised[token] = value > 0 ? value / params.repetitionPenalty : value * params.repetitionPenalty
    }
  const token = params.temperature > 0 ? draw(penalised, params, u) : argmax(penalised)
  return { token, logprob: logits[token]! / temperature - lseT, plainLogprob: logits[token]! - lse1 }
}

function draw(logits: Float32Array, params: SamplingParams, u: number): number {
  const best = logits[argmax(logits)]!
  const weights = new Float64Array(logits.length)
  for (let i = 0; i < logits.length; i++) weights[i] = Math.exp((logits[i]! - best) / params.temperature)
  const truncated = (params.topK > 0 && params.topK < logits.length) || params.topP < 1 || params.minP > 0
  if (truncated) {
    const order = Array.from(weights.keys()).sort((a, b) => logits[b]! - logits[a]! || a - b)
    let keep = params.topK > 0 ? Math.min(params.topK, order.length) : order.length
    if (params.topP < 1) {
      let total = 0
      for (let i = 0; i < keep; i++) total += weights[order[i]!]!
      let sum = 0
      let count = 0
      while (count < keep && (count === 0 || sum < params.topP * total)) sum += weights[order[count++]!]!
      keep = count
    }
    while (keep > 1 && weights[order[keep - 1]!]! < params.minP) keep-- // the best has weight 1
    for (let i = keep; i < order.length; i++) weights[order[i]!] = 0
  }
  let total = 0
  for (let i = 0; i < weights.length; i++) total += weights[i]!
  const goal = u * total
  let sum = 0
  let last = 0
  for (let i = 0; i < weights.length; i++) {
    if (weights[i] === 0) continue
    sum += weights[i]!
    last = i
    if (sum > goal) return i
  }
  return last
}

function argmax(values: Float32Array): number {
  let best = 0
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i
  return best
}

function logSumExp(logits: Float32Array, temperature: number): number {
  const best = logits[argmax(logits)]!
  let sum = 0
  for (let i = 0; i < logits.length; i++) sum += Math.exp((logits[i]! - best) / temperature)
  return best / temperature + Math.log(sum)
}
