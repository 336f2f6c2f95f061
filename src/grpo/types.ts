// Words shared by advantage.ts and loss.ts. The folder is mathematics only: it imports nothing.

export type LossType = 'grpo' | 'bnpo' | 'dr_grpo' | 'dapo' | 'cispo' | 'sapo' | 'luspo' | 'vespo'
export type ScaleRewards = 'group' | 'batch' | 'none'
export type SamplerCorrection = 'none' | 'token_truncate' | 'token_mask' | 'sequence_truncate' | 'sequence_mask'

export interface GammaShape {
  readonly k: number
  readonly lambda: number
}

/** What shapes the loss; TRL's names and meanings, in camelCase. */
export interface LossConfig {
  readonly lossType: LossType
  /** The ratio ρ = exp(logprob − old logprob) counts up to 1 − epsilon below and 1 + epsilonHigh above. */
  readonly epsilon: number
  /** Unset: equal to epsilon. With cispo it is the cap on ρ itself, not 1 + epsilonHigh. */
  readonly epsilonHigh: number | null
  /** Caps ρ where clipping doesn't reach: a negative advantage and a large ρ. null: off. */
  readonly delta: number | null
  /** Weight of the KL penalty to the reference policy; 0: off, and refLogprobs aren't needed. */
  readonly beta: number
  /** Multiplies the KL estimate by ρ, so that it is right for tokens another policy sampled. */
  readonly useBiasCorrectionKl: boolean
  /** 'sequence' (GSPO): one ratio a completion, exp of the mean over its tokens. */
  readonly importanceSamplingLevel: 'token' | 'sequence'
  /** sapo's τ: the steepness of its soft limit, for positive and for other advantages. */
  readonly sapoTemperature: { readonly positive: number; readonly negative: number }
  /** vespo's k and λ of φ(w) = e^λ wᵏ e^(−λw), for advantages from 0 on and for negative ones. */
  readonly vespoGamma: { readonly positive: GammaShape; readonly negative: GammaShape }
  /** dr_grpo divides by this many tokens a row. */
  readonly maxCompletionLength: number
  /** Takes completions that were cut off out of the loss. */
  readonly maskTruncatedCompletions: boolean
  /** Share of the micro-batch's tokens, highest entropy first, that the policy loss keeps; 1: all. */
  readonly topEntropyQuantile: number
  /** Weight of the entropy bonus; 0: off. */
  readonly entropyCoef: number
  /** Leaves out a row of negative advantage when mean(sampled − new logprob) exceeds this. null: off. */
  readonly offPolicyMaskThreshold: number | null
  /** How the gap between sampler and trainer is corrected, by exp(old logprob − sampler's logprob). */
  readonly samplerCorrection: SamplerCorrection
  readonly samplerClipMin: number | null
  readonly samplerClipMax: number | null
  /** Micro-batches of one optimizer update. */
  readonly gradientAccumulationSteps: number
  /** Micro-batches the rows given are cut into. null: gradientAccumulationSteps, so that all rows are one update. */
  readonly stepsPerGeneration: number | null
}

/** TRL 1.16's defaults, sampler correction off (sampler and trainer are one engine here). */
export const DEFAULT_LOSS_CONFIG: LossConfig = {
  lossType: 'dapo',
  epsilon: 0.2,
  epsilonHigh: null,
  delta: null,
  beta: 0,
  useBiasCorrectionKl: true,
  importanceSamplingLevel: 'token',
  sapoTemperature: { positive: 1, negative: 1.05 },
  vespoGamma: { positive: { k: 2, lambda: 3 }, negative: { k: 3, lambda: 2 } },
  maxCompletionLength: 512,
  maskTruncatedCompletions: false,
  topEntropyQuantile: 1,
  entropyCoef: 0,
  offPolicyMaskThreshold: null,
  samplerCorrection: 'none',
  samplerClipMin: null,
  samplerClipMax: 3,
  gradientAccumulationSteps: 1,
  stepsPerGeneration: null,
}

/** What is known of a completion before the training pass. Arrays have one entry a completion token. */
export interface LossRow {
  /** Completion tokens. */
  readonly length: number
  readonly advantage: number
  /** Ended by the length limit instead of a stop token. */
  readonly truncated?: boolean
  /** 0 for a token that a tool or the environment wrote, else 1; absent: all 1. */
  readonly mask?: ArrayLike<number>
  /** The policy's logprobs before the update. Absent: those of the pass itself (on-policy, ρ = 1). */
  readonly oldLogprobs?: ArrayLike<number>
  /** The reference policy's logprobs; needed when beta isn't 0. */
  readonly refLogprobs?: ArrayLike<number>
  /** What the sampler reported; NaN or null where it reported nothing. */
  readonly samplerLogprobs?: ArrayLike<number | null>
  /** Not part of the pass (see `needsRow`); still counted in every denominator. */
  readonly leftOut?: boolean
}
