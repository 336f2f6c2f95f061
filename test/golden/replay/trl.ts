// TRL's vectors as types, and the way between its padded tables and names and grpo's rows of different lengths.
import { DEFAULT_LOSS_CONFIG, type LossConfig, type LossMetrics, type LossRow, type MicroBatchLoss } from '../../../src/grpo'

export type Table = readonly (readonly number[])[]
export type Metrics = Readonly<Record<string, number | null>>

export interface LossCase {
  readonly config: Readonly<Record<string, unknown>>
  readonly inputs: {
    readonly rewards_per_func: readonly (readonly (number | null)[])[]
    readonly reward_weights: readonly number[]
    readonly lengths: readonly number[]
    readonly truncated?: readonly boolean[]
    readonly tool_mask?: Table | null
    readonly new_logps: Table
    readonly old_logps: Table | null
    readonly ref_logps?: Table | null
    readonly sampling_logps?: readonly (readonly (number | null)[])[] | null
    readonly entropies: Table
  }
  readonly expected: {
    readonly advantages: readonly number[]
    readonly loss_mask: Table
    readonly num_items_in_batch: number
    readonly importance_sampling_ratio: Table | null
    readonly generation_metrics: Metrics
    readonly micro_batches: readonly ExpectedMicroBatch[]
    readonly loss_sum: number
  }
}

export interface ExpectedMicroBatch {
  readonly rows: readonly number[]
  readonly loss: number
  readonly grad_new_logps: Table
  readonly grad_entropies: Table | null
  readonly metrics: Metrics
}

export interface AdaptiveEntropyCase {
  readonly config: Readonly<Record<string, unknown>>
  /** Optimizer steps, each a list of micro-batches. */
  readonly optimizer_steps: readonly (readonly {
    readonly lengths: readonly number[]
    readonly advantages: readonly number[]
    readonly new_logps: Table
    readonly entropies: Table
    readonly loss: number
    readonly grad_new_logps: Table
    readonly grad_entropies: Table
    readonly entropy_coef_before: number
    /** "inf" before the first step. */
    readonly last_world_entropy_before: number | string
    readonly entropy_coef_after: number
    readonly last_world_entropy_after: number
  }[])[]
}

export interface LogitsCase {
  readonly config: Readonly<Record<string, unknown>>
  readonly inputs: {
    readonly logits: readonly Table[]
    readonly token_ids: Table
    readonly lengths: readonly number[]
    readonly advantages: readonly number[]
    readonly old_logps: Table | null
    readonly ref_logps?: Table | null
  }
  readonly expected: {
    readonly new_logps: Table
    readonly entropies: Table
    readonly loss: number
    readonly grad_logits: readonly Table[]
    readonly metrics: Metrics
  }
}

export function lossConfig(wire: Readonly<Record<string, unknown>>): LossConfig {
  const mode = wire.sampler_correction ? wire.vllm_importance_sampling_mode : 'none'
  return {
    ...DEFAULT_LOSS_CONFIG,
    lossType: wire.loss_type as LossConfig['lossType'],
    epsilon: wire.epsilon as number,
    epsilonHigh: wire.epsilon_high as number | null,
    delta: wire.delta as number | null,
    beta: wire.beta as number,
    useBiasCorrectionKl: wire.use_bias_correction_kl as boolean,
    importanceSamplingLevel: wire.importance_sampling_level as 'token' | 'sequence',
    sapoTemperature: { positive: wire.sapo_temperature_pos as number, negative: wire.sapo_temperature_neg as number },
    vespoGamma: {
      positive: { k: wire.vespo_k_pos as number, lambda: wire.vespo_lambda_pos as number },
      negative: { k: wire.vespo_k_neg as number, lambda: wire.vespo_lambda_neg as number },
    },
    maxCompletionLength: wire.max_completion_length as number,
    maskTruncatedCompletions: wire.mask_truncated_completions as boolean,
    topEntropyQuantile: wire.top_entropy_quantile as number,
    entropyCoef: wire.entropy_coef as number,
    offPolicyMaskThreshold: wire.off_policy_mask_threshold as number | null,
    samplerCorrection: mode as LossConfig['samplerCorrection'],
    samplerClipMin: wire.vllm_importance_sampling_clip_min as number | null,
    samplerClipMax: wire.vllm_importance_sampling_clip_max as number | null,
    gradientAccumulationSteps: wire.gradient_accumulation_steps as number,
    stepsPerGeneration: wire.steps_per_generation as number,
  }
}

export function lossRow(inputs: Partial<LossCase['inputs']>, i: number, known: { length: number; advantage: number }): LossRow {
  const own = <T>(table: readonly (readonly T[])[] | null | undefined) => table?.[i].slice(0, known.length)
  return {
    ...known,
    truncated: inputs.truncated?.[i],
    mask: own(inputs.tool_mask),
    oldLogprobs: own(inputs.old_logps),
    refLogprobs: own(inputs.ref_logps),
    samplerLogprobs: own(inputs.sampling_logps),
  }
}

/** Our metrics of a micro-batch under TRL's names. */
export function trlMetrics(part: MicroBatchLoss, config: LossConfig): Metrics {
  const { metrics } = part
  // TRL logs the policy loss before it divides by the accumulation steps, except where the divisor is the batch's token count.
  const byBatchTokens = ['dapo', 'cispo', 'vespo'].includes(config.lossType)
  const policy_loss = part.policyLoss * (byBatchTokens ? 1 : config.gradientAccumulationSteps)
  return {
    ...(config.entropyCoef !== 0 && { policy_loss, entropy_coef: config.entropyCoef }),
    ...(metrics.kl !== null && { kl: metrics.kl }),
    entropy: metrics.entropy,
    ...limitMetrics(metrics, config),
  }
}

/** Each loss has its own word for how it held tokens back; sapo has none. */
function limitMetrics(metrics: LossMetrics, { lossType }: LossConfig): Metrics {
  if (lossType === 'cispo') return { cispo_clip_ratio: metrics.clipHigh }
  if (lossType === 'vespo') return { 'vespo/phi_seq_mean': metrics.rowWeight }
  return lossType === 'sapo' ? {} : clipMetrics(metrics)
}

function clipMetrics(metrics: LossMetrics): Metrics {
  return {
    'clip_ratio/low_mean': metrics.clipLow,
    'clip_ratio/high_mean': metrics.clipHigh,
    'clip_ratio/region_mean': metrics.clipRegion,
    'clip_ratio/low_min': metrics.clipLowMin,
    'clip_ratio/high_max': metrics.clipHighMax,
  }
}

export function unpad(table: Table, lengths: readonly number[]): number[][] {
  return lengths.map((length, i) => table[i].slice(0, length))
}

export function flat(table: Table, lengths: readonly number[]): number[] {
  return unpad(table, lengths).flat()
}

export function cut(values: Float64Array, lengths: readonly number[]): number[][] {
  let offset = 0
  return lengths.map((length) => Array.from(values.subarray(offset, (offset += length))))
}
