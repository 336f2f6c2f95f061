// A job's trainer_config: checked beyond its schema, and said in the words of the engine and of grpo.

import { LORA_TARGETS, type LoraSpec, type StepConfig } from '../engine/engine'
import { learningRateAt } from '../engine/schedule'
import { OptionError } from '../errors'
import type { EntropyControl, LossConfig, ScaleRewards } from '../grpo'
import type { LoraConfigFields, TrainerConfig } from '../protocol'

/** Throws OptionError for a configuration that could only fail later. */
export function checkTrainerConfig(config: TrainerConfig): void {
  if (config.temperature === 0)
    throw new OptionError('trainer_config.temperature is 0. Greedy rollouts are all alike and teach nothing: use 1.0.')
  const { soft_completion_penalty_length: soft, max_completion_length: longest } = config
  if (soft !== null && (longest === null || soft >= longest))
    throw new OptionError(
      `trainer_config.soft_completion_penalty_length is ${soft}; it needs a max_completion_length above it (now ${longest ?? 'null'}).`,
    )
  if (soft !== null && config.multi_objective_aggregation === 'normalize_then_sum')
    throw new OptionError(
      "trainer_config.soft_completion_penalty_length shrinks a sample's reward; with normalize_then_sum there are several. Make length a reward of its own.",
    )
  const { entropy_coef_min: least, entropy_coef_max: most } = config
  if (least > most)
    throw new OptionError(`trainer_config.entropy_coef_min (${least}) is above entropy_coef_max (${most}); swap them.`)
}

/** Null: the entropy bonus keeps its weight. */
export function entropyControl(config: TrainerConfig): EntropyControl | null {
  if (!config.use_adaptive_entropy) return null
  const { entropy_target: target, entropy_coef_delta: delta, entropy_coef_min: min, entropy_coef_max: max } = config
  return { target, delta, min, max }
}

/** Null: all weights are trained. */
export function loraSpec(config: LoraConfigFields | null): LoraSpec | null {
  if (config === null) return null
  const { target_modules: targets } = config
  return {
    rank: config.r,
    alpha: config.lora_alpha,
    targets: targets === 'all-linear' ? LORA_TARGETS : LORA_TARGETS.filter((name) => targets.includes(name)),
    dropout: config.lora_dropout,
  }
}

/** The longest row (prompt + completion): max_seq_len, in Arbor's older spelling prompt + completion, never more than the context. */
export function longestRow(config: TrainerConfig, contextLength: number): number {
  const { max_seq_len: row, max_prompt_length: prompt, max_completion_length: completion } = config
  const older = completion === null ? null : prompt === null ? completion : prompt + completion
  return Math.min(row ?? older ?? contextLength, contextLength)
}

export function rewardScale({ scale_rewards: wish }: TrainerConfig): ScaleRewards {
  return wish === true ? 'group' : wish === false ? 'none' : wish
}

/** @param maxTokens what dr_grpo divides by: Arbor takes the longest row */
export function lossConfig(config: TrainerConfig, maxTokens: number): LossConfig {
  return {
    lossType: config.loss_type,
    epsilon: config.epsilon,
    epsilonHigh: config.epsilon_high,
    delta: config.delta,
    beta: config.beta,
    useBiasCorrectionKl: config.use_bias_correction_kl,
    importanceSamplingLevel: config.importance_sampling_level,
    sapoTemperature: { positive: config.sapo_temperature_pos, negative: config.sapo_temperature_neg },
    vespoGamma: {
      positive: { k: config.vespo_k_pos, lambda: config.vespo_lambda_pos },
      negative: { k: config.vespo_k_neg, lambda: config.vespo_lambda_neg },
    },
    maxCompletionLength: maxTokens,
    maskTruncatedCompletions: config.mask_truncated_completions,
    topEntropyQuantile: config.top_entropy_quantile,
    entropyCoef: config.entropy_coef,
    offPolicyMaskThreshold: config.off_policy_mask_threshold,
    samplerCorrection: config.sampler_correction,
    samplerClipMin: config.sampler_correction_clip_min,
    samplerClipMax: config.sampler_correction_clip_max,
    gradientAccumulationSteps: config.gradient_accumulation_steps,
    stepsPerGeneration: null,
  }
}

export function stepConfig(config: TrainerConfig, learningRate: number): StepConfig {
  return {
    temperature: config.temperature,
    learningRate,
    beta1: config.adam_beta1,
    beta2: config.adam_beta2,
    eps: config.adam_epsilon,
    weightDecay: config.weight_decay,
    maxGradNorm: config.max_grad_norm,
  }
}

/** The rate of GRPO step `step`, from 1; all its iterations share it. max_steps is the length of the schedule only. */
export function learningRateOf(config: TrainerConfig, step: number): number {
  const { lr_scheduler_type: type, learning_rate: base, warmup_steps: warmup, max_steps: total } = config
  return learningRateAt(step - 1, { type, base, warmup, total })
}
