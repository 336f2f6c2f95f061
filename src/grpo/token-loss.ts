// The table of loss types: what a token costs, and by what its cost is divided. A new loss type is a new line.
import type { LossConfig, LossType } from './types'

export interface TokenLossInput {
  /** ρ: the token's, or with sequence ratios its completion's. */
  readonly ratio: number
  readonly logprob: number
  readonly advantage: number
  /** The completion's own weight, constant in the gradient (vespo's φ); the other losses don't ask for it. */
  readonly rowWeight: number
}

export interface TokenLoss {
  readonly value: number
  /** Derivative with respect to log ρ, i.e. (dl/dρ)·ρ. */
  readonly dLogRatio: number
  /** Derivative with respect to the logprob where it stands in the formula outside ρ. */
  readonly dLogprob: number
  /** Whether the limit held the token back: ρ too low with a negative advantage, too high with a positive one. */
  readonly clippedLow: boolean
  readonly clippedHigh: boolean
}

/** Counts a token's weight may depend on. Rows left out of the pass count too. */
export interface Counts {
  /** Kept tokens of the row, of the micro-batch, of the whole generation batch. */
  readonly rowTokens: number
  readonly microBatchTokens: number
  readonly batchTokens: number
  /** Rows of the micro-batch. */
  readonly rows: number
  /** Micro-batches of one update, and of the generation batch. */
  readonly accumulation: number
  readonly microBatches: number
}

interface LossKind {
  readonly token: (input: TokenLossInput, config: LossConfig) => TokenLoss
  /** A token's share of the loss: the loss of a micro-batch is Σ weight · token loss over its kept tokens. */
  readonly weight: (counts: Counts, config: LossConfig) => number
}

/** Every completion counts the same. */
const perRow = (c: Counts) => 1 / (atLeastOne(c.rowTokens) * c.rows * c.accumulation)
/** Every completion counts by its length: the sum over its tokens, not their mean. */
const perRowWhole = (c: Counts) => 1 / (c.rows * c.accumulation)
/** Every token of the micro-batch counts the same. */
const perMicroBatchToken = (c: Counts) => 1 / (atLeastOne(c.microBatchTokens) * c.accumulation)
/** Every token counts the same whatever was sampled: no pull towards short or long completions. */
const perTokenOfBudget = (c: Counts, config: LossConfig) => 1 / (c.rows * config.maxCompletionLength * c.accumulation)
/** Every token of the generation batch counts the same, however the batch is cut. */
const perBatchToken = (c: Counts) => c.microBatches / (atLeastOne(c.batchTokens) * c.accumulation)

export const LOSS_KINDS: Readonly<Record<LossType, LossKind>> = {
  grpo: { token: clipped, weight: perRow },
  bnpo: { token: clipped, weight: perMicroBatchToken },
  dr_grpo: { token: clipped, weight: perTokenOfBudget },
  dapo: { token: clipped, weight: perBatchToken },
  cispo: { token: cappedWeight, weight: perBatchToken },
  sapo: { token: softGate, weight: perRow },
  luspo: { token: clipped, weight: perRowWhole },
  vespo: { token: rowWeighted, weight: perBatchToken },
}

/** −min( min(ρ, δ)·A, clip(ρ, 1 − ε, 1 + ε_high)·A ): PPO's clipped objective with the two-sided cap δ. */
function clipped({ ratio, advantage }: TokenLossInput, config: LossConfig): TokenLoss {
  const low = 1 - config.epsilon
  const high = 1 + (config.epsilonHigh ?? config.epsilon)
  const capped = Math.min(ratio, config.delta ?? Number.POSITIVE_INFINITY)
  const free = capped * advantage
  const bounded = Math.min(Math.max(ratio, low), high) * advantage
  // Only a branch in which ρ isn't held at a limit has a slope.
  const moves = free <= bounded ? capped === ratio : ratio >= low && ratio <= high
  return {
    value: -Math.min(free, bounded),
    dLogRatio: moves ? -ratio * advantage : 0,
    dLogprob: 0,
    clippedLow: capped < low && advantage < 0,
    clippedHigh: capped > high && advantage > 0,
  }
}

/** −min(ρ, ε_high)·A·logprob, the weight held constant (CISPO): a capped token still teaches. */
function cappedWeight({ ratio, logprob, advantage }: TokenLossInput, config: LossConfig): TokenLoss {
  const cap = config.epsilonHigh ?? config.epsilon
  const slope = -Math.min(ratio, cap) * advantage
  return {
    value: slope * logprob,
    dLogRatio: 0,
    dLogprob: slope,
    clippedLow: false,
    clippedHigh: ratio > cap && advantage > 0,
  }
}

/** −(4/τ)·sigmoid(τ(ρ − 1))·A (SAPO): a limit without an edge; at ρ = 1 the slope is A's, as in the clipped objective. */
function softGate({ ratio, advantage }: TokenLossInput, config: LossConfig): TokenLoss {
  const tau = advantage > 0 ? config.sapoTemperature.positive : config.sapoTemperature.negative
  const gate = 1 / (1 + Math.exp(-tau * (ratio - 1)))
  return {
    ...FREE,
    value: -(4 / tau) * gate * advantage,
    dLogRatio: -4 * gate * (1 - gate) * ratio * advantage,
  }
}

/** −φ·A·logprob, φ the completion's weight (VESPO; `gammaWeight` of multipliers.ts). */
function rowWeighted({ logprob, advantage, rowWeight }: TokenLossInput): TokenLoss {
  const slope = -rowWeight * advantage
  return { ...FREE, value: slope * logprob, dLogprob: slope }
}

/** What holds for a loss that has no edge to be held at. */
const FREE = { dLogRatio: 0, dLogprob: 0, clippedLow: false, clippedHigh: false } as const

function atLeastOne(count: number): number {
  return Math.max(1, count)
}
