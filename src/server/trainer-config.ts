// What an initialize call asks for, checked beyond its schema, and in the engine's words.

import { LORA_TARGETS, type LoraSpec } from '../engine/engine'
import { OptionError } from '../errors'
import type { LoraConfigFields, TrainerConfig } from '../protocol'

/** Throws OptionError for a configuration that could only fail later. */
export function checkTrainerConfig(config: TrainerConfig): asserts config is TrainerConfig & { lora_config: LoraConfigFields } {
  if (config.lora_config === null)
    throw new OptionError(
      'trainer_config.lora_config is null. Training all weights is not supported yet: give a lora_config, for example {"r": 16, "lora_alpha": 32, "target_modules": "all-linear", "lora_dropout": 0}.',
    )
  if (config.temperature === 0)
    throw new OptionError('trainer_config.temperature is 0. Greedy rollouts are all alike and teach nothing: use 1.0.')
  const { soft_completion_penalty_length: soft, max_completion_length: longest } = config
  if (soft !== null && (longest === null || soft >= longest))
    throw new OptionError(
      `trainer_config.soft_completion_penalty_length is ${soft}; it needs a max_completion_length above it (now ${longest ?? 'null'}).`,
    )
}

export function loraSpec(config: LoraConfigFields): LoraSpec {
  return {
    rank: config.r,
    alpha: config.lora_alpha,
    targets: config.target_modules === 'all-linear' ? LORA_TARGETS : [...new Set(config.target_modules)],
    dropout: config.lora_dropout,
  }
}

/** The longest row (prompt + completion): max_seq_len, in Arbor's older spelling prompt + completion, never more than the context. */
export function longestRow(config: TrainerConfig, contextLength: number): number {
  const { max_seq_len: row, max_prompt_length: prompt, max_completion_length: completion } = config
  const older = completion === null ? null : prompt === null ? completion : prompt + completion
  return Math.min(row ?? older ?? contextLength, contextLength)
}
