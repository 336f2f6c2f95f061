// What a person watches while the policy trains: sums collected token by token, turned into means at the end.
import { combineRewards, mean, standardDeviation } from './advantage'
import { type MaskedRow, samplerGap, samplerRatios } from './multipliers'
import type { LossConfig } from './types'

export interface LossMetrics {
  /** Token mean of the KL estimate to the reference (times ρ with the bias correction); null without a KL term. */
  readonly kl: number | null
  /** Token mean, nats, over the rows of the pass. */
  readonly entropy: number
  /** Share of tokens (with sequence ratios: of rows) held by the lower limit, by the upper one, by either. */
  readonly clipLow: number
  readonly clipHigh: number
  readonly clipRegion: number
  /** Smallest and largest share of a single row; NaN without rows that have tokens. */
  readonly clipLowMin: number
  readonly clipHighMax: number
  /** Mean weight φ of the rows of the pass; null but for vespo. */
  readonly rowWeight: number | null
}

/** Running sums behind LossMetrics; those of several micro-batches add up. */
export class Tally {
  private kl = 0
  private klTokens = 0
  private entropy = 0
  private entropyTokens = 0
  private low = 0
  private high = 0
  private units = 0
  private lowMin = Number.POSITIVE_INFINITY
  private highMax = Number.NEGATIVE_INFINITY

  private rowWeights = 0
  private weighedRows = 0

  addRowWeight(value: number): void {
    this.rowWeights += value
    this.weighedRows++
  }

  addEntropy(value: number): void {
    this.entropy += value
    this.entropyTokens++
  }

  addKl(value: number): void {
    this.kl += value
    this.klTokens++
  }

  /** A row's clipped units out of its units: tokens, or 1 with sequence ratios. */
  addRow(clip: { readonly low: number; readonly high: number; readonly units: number }): void {
    if (clip.units === 0) return
    this.low += clip.low
    this.high += clip.high
    this.units += clip.units
    this.lowMin = Math.min(this.lowMin, clip.low / clip.units)
    this.highMax = Math.max(this.highMax, clip.high / clip.units)
  }

  add(other: Tally): void {
    this.kl += other.kl
    this.klTokens += other.klTokens
    this.entropy += other.entropy
    this.entropyTokens += other.entropyTokens
    this.low += other.low
    this.high += other.high
    this.units += other.units
    this.lowMin = Math.min(this.lowMin, other.lowMin)
    this.highMax = Math.max(this.highMax, other.highMax)
    this.rowWeights += other.rowWeights
    this.weighedRows += other.weighedRows
  }

  metrics(withKl: boolean): LossMetrics {
    const units = Math.max(1, this.units)
    return {
      kl: withKl ? this.kl / Math.max(1, this.klTokens) : null,
      entropy: this.entropy / Math.max(1, this.entropyTokens),
      clipLow: this.low / units,
      clipHigh: this.high / units,
      // A token is held by one limit at most: the two ask for advantages of opposite sign.
      clipRegion: (this.low + this.high) / units,
      clipLowMin: this.units === 0 ? Number.NaN : this.lowMin,
      clipHighMax: this.units === 0 ? Number.NaN : this.highMax,
      rowWeight: this.weighedRows === 0 ? null : this.rowWeights / this.weighedRows,
    }
  }
}

/** The gap between sampler and trainer. */
export interface SamplerMetrics {
  /** |old − sampler's logprob| over kept tokens that have both. */
  readonly gapMean: number
  readonly gapMax: number
  /** Of the correction applied: over kept tokens, or over rows in the sequence modes. */
  readonly ratioMin: number
  readonly ratioMean: number
  readonly ratioMax: number
}

/** All 0 where there is nothing to compare. */
export function samplerMetrics(rows: readonly MaskedRow[], config: LossConfig): SamplerMetrics {
  const wholeSequence = config.samplerCorrection.startsWith('sequence')
  const gaps: number[] = []
  const used: number[] = []
  for (const row of rows) {
    const ratios = samplerRatios(row, config)
    if (wholeSequence) used.push(ratios[0])
    row.mask.forEach((kept, t) => {
      const gap = samplerGap(row, t)
      if (kept && gap !== null) gaps.push(Math.abs(gap))
      if (kept && !wholeSequence) used.push(ratios[t])
    })
  }
  const extreme = (values: number[], pick: (a: number, b: number) => number) => (values.length === 0 ? 0 : values.reduce(pick))
  return {
    gapMean: gaps.length === 0 ? 0 : mean(gaps),
    gapMax: extreme(gaps, (a, b) => Math.max(a, b)),
    ratioMin: extreme(used, (a, b) => Math.min(a, b)),
    ratioMean: used.length === 0 ? 0 : mean(used),
    ratioMax: extreme(used, (a, b) => Math.max(a, b)),
  }
}

export interface RewardMetrics {
  /** Over all live rows. */
  readonly reward: number
  readonly rewardStd: number
  /** Per reward function, over the rows for which it returned a value. */
  readonly functions: readonly { readonly mean: number; readonly std: number }[]
}

export function rewardMetrics(
  rewardsPerFunction: readonly (readonly (number | null)[])[],
  weights?: readonly number[],
): RewardMetrics {
  const rewards = combineRewards(rewardsPerFunction, weights)
  const functions = (rewardsPerFunction[0] ?? []).map((_, k) => {
    const returned = rewardsPerFunction.map((row) => row[k] ?? Number.NaN)
    return { mean: mean(returned), std: standardDeviation(returned) }
  })
  return { reward: mean(rewards), rewardStd: standardDeviation(rewards), functions }
}
