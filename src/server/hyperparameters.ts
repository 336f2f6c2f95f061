// A fine-tuning job's hyperparameters: what was asked for, with every default filled in.

import type { z } from 'zod'
import type { LoraSpec, StepConfig } from '../engine/engine'
import { learningRateAt } from '../engine/schedule'
import { OptionError } from '../errors'
import { type FineTuningRequestSchema, type Hyperparameters, HyperparametersSchema, LORA_TARGET_MODULES } from '../protocol'
import { loraSpec } from './trainer-config'

const LORA_RATE = 2e-4
const FULL_RATE = 1e-5
const DEFAULT_LORA = { r: 16, lora_alpha: 32, target_modules: [...LORA_TARGET_MODULES], lora_dropout: 0 }

export interface FinetunePlan {
  readonly epochs: number
  /** Conversations an update. */
  readonly batch: number
  readonly learningRate: number
  readonly maxTokens: number
  /** Null: all weights are trained. */
  readonly lora: LoraSpec | null
  readonly given: Hyperparameters
}

type Asked = Pick<z.output<typeof FineTuningRequestSchema>, 'hyperparameters' | 'method' | 'seed'>

/** From wherever a request has them. @throws OptionError for two places, and for a method that isn't supervised fine-tuning */
export function askedHyperparameters({ hyperparameters, method, seed }: Asked): Hyperparameters {
  if (method && method.type !== 'supervised')
    throw new OptionError(`method.type is "${method.type}"; fine-tuning jobs are "supervised" here. For rewards there is GRPO.`)
  const inMethod = method?.supervised?.hyperparameters
  if (hyperparameters && inMethod)
    throw new OptionError('There are hyperparameters and method.supervised.hyperparameters; give one of them.')
  const given = hyperparameters ?? inMethod ?? HyperparametersSchema.parse({})
  return seed === undefined || seed === null ? given : { ...given, seed }
}

/** @throws OptionError where a value has two names and two values */
export function finetunePlan(asked: Hyperparameters | null | undefined, contextLength: number): FinetunePlan {
  const given = asked ?? HyperparametersSchema.parse({})
  const lora = loraSpec(given.lora_config ?? (given.use_peft ? DEFAULT_LORA : null))
  const size = oneOf(given, 'per_device_train_batch_size', 'batch_size') ?? 8
  return {
    epochs: oneOf(given, 'num_train_epochs', 'n_epochs') ?? 3,
    batch: size * given.gradient_accumulation_steps,
    learningRate: learningRate(given, lora ? LORA_RATE : FULL_RATE),
    maxTokens: Math.min(oneOf(given, 'max_seq_len', 'max_seq_length') ?? contextLength, contextLength),
    lora,
    given,
  }
}

function learningRate({ learning_rate: rate, learning_rate_multiplier: times }: Hyperparameters, usual: number): number {
  if (rate !== undefined && times !== undefined)
    throw new OptionError(`learning_rate is ${rate} and learning_rate_multiplier ${times}; give one of them.`)
  return rate ?? usual * (times ?? 1)
}

type NumberKey = 'per_device_train_batch_size' | 'batch_size' | 'num_train_epochs' | 'n_epochs' | 'max_seq_len' | 'max_seq_length'

function oneOf(given: Hyperparameters, name: NumberKey, other: NumberKey): number | undefined {
  if (given[name] !== undefined && given[other] !== undefined && given[name] !== given[other])
    throw new OptionError(`${name} is ${given[name]} and ${other} is ${given[other]}; they mean the same: give one.`)
  return given[name] ?? given[other]
}

/** The engine's words for update `step` (from 0) of `steps`. */
export function finetuneStep({ given, learningRate }: FinetunePlan, step: number, steps: number): StepConfig {
  return {
    temperature: 1,
    learningRate: learningRateAt(step, {
      type: given.lr_scheduler_type,
      base: learningRate,
      warmup: given.warmup_steps,
      total: steps,
    }),
    beta1: given.adam_beta1,
    beta2: given.adam_beta2,
    eps: given.adam_epsilon,
    weightDecay: given.weight_decay,
    maxGradNorm: given.max_grad_norm,
  }
}
