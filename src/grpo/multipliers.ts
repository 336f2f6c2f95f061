// The three multipliers of a token's loss, all constant in the gradient: off-policy mask, top-entropy tokens, sampler correction.
import type { LossConfig } from './types'

/** One completion's arrays, one entry a token; `mask` is the kept tokens' 0/1. */
export interface MaskedRow {
  readonly mask: Uint8Array
  /** Of the old policy (`old`) and, where recorded, of the sampler: NaN where it reported nothing. */
  readonly oldLogprobs: ArrayLike<number>
  readonly samplerLogprobs?: ArrayLike<number | null>
}

/**
 * exp(old − sampler's logprob), clipped or zeroed outside the limits: one value a token, or a single one in the sequence modes.
 * A logprob that the sampler didn't report counts as no gap; without correction all are 1.
 */
export function samplerRatios(row: MaskedRow, config: LossConfig): Float64Array {
  if (config.samplerCorrection === 'none') return new Float64Array(row.mask.length).fill(1)
  const gaps = Float64Array.from(row.mask, (kept, t) => (kept ? (samplerGap(row, t) ?? 0) : 0))
  const wholeSequence = config.samplerCorrection.startsWith('sequence')
  const exponents = wholeSequence ? Float64Array.of(gaps.reduce((sum, gap) => sum + gap, 0)) : gaps
  const min = config.samplerClipMin ?? Number.NEGATIVE_INFINITY
  const max = config.samplerClipMax ?? Number.POSITIVE_INFINITY
  const truncates = config.samplerCorrection.endsWith('truncate')
  return exponents.map((exponent) => {
    const ratio = Math.exp(exponent)
    if (truncates) return Math.min(Math.max(ratio, min), max)
    return ratio < min || ratio > max ? 0 : ratio
  })
}

/** Bounds of log w in `gammaWeight`, and of a token's share of it. */
const LOG_LEAST = Math.log(1e-8)
const LOG_MOST = 20

/**
 * φ(w) = e^λ wᵏ e^(−λw) of a completion (VESPO, https://arxiv.org/abs/2602.10693): 1 where the policy hasn't moved, w the ratio of the whole
 * sequence, π/π_old, times what the sampler correction asks for (which is then not applied again).
 */
export function gammaWeight(
  row: MaskedRow & { readonly logprobs: ArrayLike<number> },
  advantage: number,
  config: LossConfig,
): number {
  const clamp = (value: number, least: number) => Math.min(Math.max(value, least), LOG_MOST)
  const logRatios = Array.from(row.mask, (kept, t) => (kept ? clamp(row.logprobs[t] - row.oldLogprobs[t], -LOG_MOST) : 0))
  const corrections = Array.from(samplerRatios(row, config), (ratio) => clamp(Math.log(ratio), LOG_LEAST))
  const logW = clamp(
    [...logRatios, ...corrections].reduce((sum, value) => sum + value, 0),
    LOG_LEAST,
  )
  const { k, lambda } = advantage >= 0 ? config.vespoGamma.positive : config.vespoGamma.negative
  const phi = Math.exp(lambda + k * logW - lambda * Math.exp(logW))
  return Number.isFinite(phi) ? phi : 0
}

/** old − sampler's logprob of a token; null where the sampler reported nothing. */
export function samplerGap(row: MaskedRow, token: number): number | null {
  const reported = row.samplerLogprobs?.[token]
  return reported === undefined || reported === null || Number.isNaN(reported) ? null : row.oldLogprobs[token] - reported
}

/**
 * Whether a row stays: a bad completion (A < 0) that the policy has since moved away from is left out. What sampled it is the
 * sampler where its logprobs were recorded, else the old policy.
 */
export function keepsOffPolicyRow(
  row: MaskedRow,
  logprobs: ArrayLike<number>,
  options: { advantage: number; threshold: number },
) {
  if (options.advantage >= 0) return true
  let drift = 0
  let tokens = 0
  for (let t = 0; t < row.mask.length; t++) {
    if (!row.mask[t]) continue
    tokens++
    const sampled = row.samplerLogprobs ? row.samplerLogprobs[t] : row.oldLogprobs[t]
    if (sampled !== null && !Number.isNaN(sampled)) drift += sampled - logprobs[t]
  }
  return drift / Math.max(1, tokens) <= options.threshold
}

/** The entropy from which on a token counts, so that the share `top` of the values counts: the (1 − top) quantile, interpolated. */
export function entropyThreshold(entropies: readonly number[], top: number): number {
  if (top >= 1 || entropies.length === 0) return Number.NEGATIVE_INFINITY
  const sorted = Float64Array.from(entropies).sort()
  const position = (sorted.length - 1) * (1 - top)
  // 0.8 · 5 isn't quite 4 in floating point; without this the token at the quantile itself would fall out.
  const nearest = Math.round(position)
  if (Math.abs(position - nearest) < 1e-9) return sorted[nearest]
  const below = Math.floor(position)
  return sorted[below] + (position - below) * (sorted[below + 1] - sorted[below])
}
