// The loss of group-relative policy optimisation and its gradient in closed form, from logprobs and advantages. Read `policyLoss`
// first, then `addRow`. Everything is float64. The gradient of a token's logprob is
//   weight · ( multipliers · dl/dlogprob + beta · dKL/dlogprob ),
// weight from the loss type, dl through the ratio ρ = exp(logprob − old logprob).
import { type LossMetrics, type SamplerMetrics, samplerMetrics, Tally } from './metrics'
import { entropyThreshold, gammaWeight, keepsOffPolicyRow, type MaskedRow, samplerRatios } from './multipliers'
import { LOSS_KINDS } from './token-loss'
import type { LossConfig, LossRow } from './types'

export interface LossInput {
  /** The rows of one optimizer step, in order; micro-batches are cut from them. */
  readonly rows: readonly LossRow[]
  /** The pass's result: the completion tokens of all rows that aren't left out, one row after the other. */
  readonly logprobs: ArrayLike<number>
  readonly entropies: ArrayLike<number>
}

export interface MicroBatchLoss {
  /** Rows start … end − 1. */
  readonly start: number
  readonly end: number
  readonly loss: number
  /** The loss without the entropy bonus. */
  readonly policyLoss: number
  readonly metrics: LossMetrics
}

export interface PolicyLoss {
  /** Sum over the micro-batches. */
  readonly loss: number
  /** Laid out as `logprobs`; 0 for tokens that are masked. */
  readonly dLogprobs: Float64Array
  /** Laid out as `entropies`; only with an entropy bonus. */
  readonly dEntropies?: Float64Array
  /** Tokens that count in the loss, those of left-out rows included. */
  readonly keptTokens: number
  readonly microBatches: readonly MicroBatchLoss[]
  /** Over all micro-batches, each token counting the same. */
  readonly metrics: LossMetrics
  /** The gap between sampler and trainer; null when no row has samplerLogprobs. */
  readonly sampler: SamplerMetrics | null
}

/** A row with its part of the pass's arrays. */
interface PassRow extends MaskedRow {
  readonly row: LossRow
  readonly keptTokens: number
  /** Where the row starts in the flat arrays. */
  readonly offset: number
  readonly logprobs: Float64Array
  readonly entropies: Float64Array
}

/** What the rows of a micro-batch share while their losses and gradients are added up. */
interface Accumulator {
  readonly config: LossConfig
  readonly threshold: number
  readonly dLogprobs: Float64Array
  readonly tally: Tally
}

/** Loss, gradient and metrics of one optimizer step. Throws when an array that the config asks for is missing or of a wrong length. */
export function policyLoss(input: LossInput, config: LossConfig): PolicyLoss {
  const rows = layOut(input, config)
  const { accumulation, bounds } = cutRows(rows.length, config)
  const dLogprobs = new Float64Array(input.logprobs.length)
  const dEntropies = config.entropyCoef !== 0 ? new Float64Array(input.logprobs.length) : undefined
  const total = new Tally()
  const batchTokens = sumKept(rows)
  const microBatches = bounds.slice(1).map((end, k): MicroBatchLoss => {
    const start = bounds[k]
    const part = rows.slice(start, end)
    const counts = {
      batchTokens,
      microBatchTokens: sumKept(part),
      rows: part.length,
      accumulation,
      microBatches: bounds.length - 1,
    }
    const top = config.topEntropyQuantile
    const threshold = entropyThreshold(top < 1 ? part.flatMap(keptEntropies) : [], top)
    const step = { config, threshold, dLogprobs, tally: new Tally() }
    const policyLoss = part.reduce((sum, row) => {
      return sum + addRow(row, LOSS_KINDS[config.lossType].weight({ ...counts, rowTokens: row.keptTokens }, config), step)
    }, 0)
    const bonus = dEntropies ? addEntropyBonus(part, dEntropies, { threshold, coef: config.entropyCoef / accumulation }) : 0
    total.add(step.tally)
    return { start, end, loss: policyLoss - bonus, policyLoss, metrics: step.tally.metrics(config.beta !== 0) }
  })
  const loss = microBatches.reduce((sum, part) => sum + part.loss, 0)
  const compared = rows.filter(({ row }) => !row.leftOut || row.oldLogprobs)
  const sampler = compared.some(({ row }) => row.samplerLogprobs) ? samplerMetrics(compared, config) : null
  return {
    loss,
    dLogprobs,
    dEntropies,
    keptTokens: batchTokens,
    microBatches,
    metrics: total.metrics(config.beta !== 0),
    sampler,
  }
}

/**
 * Whether a row must be part of the training pass. One without kept tokens never, one of advantage 0 only when KL, entropy
 * bonus or top-entropy tokens ask for its logprobs and entropies: a row for which this is false, marked `leftOut`, changes neither
 * loss nor gradient (only the entropy metric, which covers the rows of the pass).
 */
export function needsRow(row: LossRow, config: LossConfig): boolean {
  if (!keptMask(row, config).includes(1)) return false
  return row.advantage !== 0 || config.beta !== 0 || config.entropyCoef !== 0 || config.topEntropyQuantile < 1
}

/**
 * Whether the gradient can be said before the pass: where the pass's logprobs are the old ones too, ρ is 1 whatever they are, and nothing
 * else asks for them. `policyLoss` then gives the same gradient for any logprobs and entropies.
 */
export function gradientIsKnown(rows: readonly LossRow[], config: LossConfig): boolean {
  const asksForLogprobs = config.beta !== 0 || config.offPolicyMaskThreshold !== null || config.samplerCorrection !== 'none'
  const asksForEntropies = config.entropyCoef !== 0 || config.topEntropyQuantile < 1
  return !asksForLogprobs && !asksForEntropies && rows.every((row) => row.leftOut || !row.oldLogprobs)
}

/** 1 for a completion token that counts, 0 for a tool's token and for all of a truncated row that the config masks. */
export function keptMask(row: LossRow, config: LossConfig): Uint8Array {
  const kept = new Uint8Array(row.length)
  if (config.maskTruncatedCompletions && row.truncated === true) return kept
  kept.fill(1)
  for (let t = 0; row.mask && t < kept.length; t++) if (row.mask[t] === 0) kept[t] = 0
  return kept
}

/** Cuts `rows` rows, in order, into `parts` near-equal parts; parts + 1 bounds. */
export function microBatchBounds(rows: number, parts: number): number[] {
  return Array.from({ length: parts + 1 }, (_, k) => Math.floor((k * rows) / parts))
}

/** Adds a row's gradient, returns its loss. */
function addRow(pass: PassRow, weight: number, step: Accumulator): number {
  const { config, dLogprobs, tally } = step
  const { mask, logprobs, oldLogprobs, keptTokens, offset } = pass
  const sequenceLevel = config.importanceSamplingLevel === 'sequence'
  const clip = { low: 0, high: 0, units: sequenceLevel ? 1 : keptTokens }
  if (pass.row.leftOut) {
    tally.addRow(clip)
    return 0
  }
  const multiplier = rowMultipliers(pass, step)
  const rowWeight = config.lossType === 'vespo' ? gammaWeight(pass, pass.row.advantage, config) : 1
  if (config.lossType === 'vespo') tally.addRowWeight(rowWeight)
  const rowRatio = sequenceLevel ? Math.exp(meanLogRatio(pass)) : Number.NaN
  let loss = 0
  let dRowLogRatio = 0
  for (let t = 0; t < mask.length; t++) {
    if (!mask[t]) continue
    const ratio = sequenceLevel ? rowRatio : Math.exp(logprobs[t] - oldLogprobs[t])
    const token = LOSS_KINDS[config.lossType].token(
      { ratio, logprob: logprobs[t], advantage: pass.row.advantage, rowWeight },
      config,
    )
    const kl = klPenalty(pass, t, { ratio, config })
    loss += weight * (multiplier(t) * token.value + config.beta * kl.value)
    dLogprobs[offset + t] += weight * (multiplier(t) * token.dLogprob + config.beta * kl.dLogprob)
    const dLogRatio = weight * (multiplier(t) * token.dLogRatio + config.beta * kl.dLogRatio)
    if (sequenceLevel) dRowLogRatio += dLogRatio
    else dLogprobs[offset + t] += dLogRatio
    clip.low += Number(token.clippedLow)
    clip.high += Number(token.clippedHigh)
    tally.addEntropy(pass.entropies[t])
    if (config.beta !== 0) tally.addKl(kl.value)
  }
  // log ρ of the row is the mean over its tokens, so each token gets an equal share of its derivative.
  for (let t = 0; sequenceLevel && t < mask.length; t++) if (mask[t]) dLogprobs[offset + t] += dRowLogRatio / keptTokens
  tally.addRow(sequenceLevel ? { low: Math.min(1, clip.low), high: Math.min(1, clip.high), units: 1 } : clip)
  return loss
}

/** Product of a token's three multipliers. */
function rowMultipliers(pass: PassRow, { config, threshold }: Accumulator): (token: number) => number {
  const { advantage } = pass.row
  const limit = config.offPolicyMaskThreshold
  const keepsRow = limit === null || keepsOffPolicyRow(pass, pass.logprobs, { advantage, threshold: limit })
  // vespo has the correction inside its weight already.
  const correction = samplerRatios(pass, config.lossType === 'vespo' ? { ...config, samplerCorrection: 'none' } : config)
  const wholeSequence = config.lossType !== 'vespo' && config.samplerCorrection.startsWith('sequence')
  return (t) => (keepsRow && pass.entropies[t] >= threshold ? correction[wholeSequence ? 0 : t] : 0)
}

/** exp(x) − x − 1 with x = reference − logprob (never negative, unbiased for samples of the policy), times ρ where corrected. */
function klPenalty(pass: PassRow, t: number, { ratio, config }: { ratio: number; config: LossConfig }) {
  if (config.beta === 0) return { value: 0, dLogprob: 0, dLogRatio: 0 }
  const x = pass.row.refLogprobs![t] - pass.logprobs[t]
  const estimate = Math.expm1(x) - x
  if (!config.useBiasCorrectionKl) return { value: estimate, dLogprob: -Math.expm1(x), dLogRatio: 0 }
  return { value: estimate * ratio, dLogprob: -Math.expm1(x) * ratio, dLogRatio: estimate * ratio }
}

/** coef · mean entropy over the tokens that count and reach the threshold; adds its gradient (the loss falls as it grows). */
function addEntropyBonus(
  rows: readonly PassRow[],
  dEntropies: Float64Array,
  options: { threshold: number; coef: number },
): number {
  const { threshold, coef } = options
  const chosen = rows.flatMap(keptEntropies).filter((entropy) => entropy >= threshold)
  const share = coef / Math.max(1, chosen.length)
  for (const { mask, entropies, offset } of rows)
    for (let t = 0; t < entropies.length; t++) dEntropies[offset + t] = mask[t] && entropies[t] >= threshold ? -share : 0
  return chosen.reduce((sum, entropy) => sum + share * entropy, 0)
}

function meanLogRatio({ mask, logprobs, oldLogprobs, keptTokens }: PassRow): number {
  return mask.reduce((sum, kept, t) => (kept ? sum + (logprobs[t] - oldLogprobs[t]) : sum), 0) / Math.max(1, keptTokens)
}

function keptEntropies({ mask, entropies }: PassRow): number[] {
  return Array.from(entropies).filter((_, t) => mask[t] === 1)
}

function sumKept(rows: readonly PassRow[]): number {
  return rows.reduce((sum, row) => sum + row.keptTokens, 0)
}

function cutRows(rows: number, config: LossConfig): { accumulation: number; bounds: number[] } {
  // Fewer rows than micro-batches: one row each, and as many micro-batches as that makes.
  const parts = Math.max(1, Math.min(rows, config.stepsPerGeneration ?? config.gradientAccumulationSteps))
  const accumulation = config.stepsPerGeneration === null ? parts : config.gradientAccumulationSteps
  return { accumulation, bounds: microBatchBounds(rows, parts) }
}

function layOut({ rows, logprobs, entropies }: LossInput, config: LossConfig): PassRow[] {
  const flatLogprobs = new Float64Array(logprobs)
  const flatEntropies = new Float64Array(entropies)
  let offset = 0
  const laidOut = rows.map((row, i): PassRow => {
    checkRow(row, i, config)
    const tokens = row.leftOut ? 0 : row.length
    const mask = keptMask(row, config)
    const own = flatLogprobs.subarray(offset, offset + tokens)
    const pass = { mask, keptTokens: mask.reduce((sum, kept) => sum + kept, 0), offset, logprobs: own, row }
    const rowEntropies = flatEntropies.subarray(offset, offset + tokens)
    offset += tokens
    return { ...pass, entropies: rowEntropies, oldLogprobs: row.oldLogprobs ?? own, samplerLogprobs: row.samplerLogprobs }
  })
  for (const [name, length] of [['logprobs', flatLogprobs.length] as const, ['entropies', flatEntropies.length] as const])
    if (length !== offset)
      throw new Error(`${name} has ${length} values, but the rows of the pass have ${offset} completion tokens`)
  return laidOut
}

function checkRow(row: LossRow, index: number, config: LossConfig): void {
  if (!Number.isFinite(row.advantage)) throw new Error(`row ${index}: advantage ${row.advantage} isn't a finite number`)
  if (row.leftOut && needsRow(row, config))
    throw new Error(`row ${index} is left out of the pass, but this loss needs it: ask needsRow`)
  if (config.beta !== 0 && !row.refLogprobs && !row.leftOut)
    throw new Error(`row ${index} has no refLogprobs; a KL penalty (beta ${config.beta}) needs the reference policy's logprobs`)
  for (const name of ['mask', 'oldLogprobs', 'refLogprobs', 'samplerLogprobs'] as const) {
    const entries = row[name]?.length ?? row.length
    if (entries !== row.length)
      throw new Error(`row ${index}: ${name} has ${entries} entries for ${row.length} completion tokens`)
  }
}
