// `trainKwargs` → trainer_config: lenient where the tutorial is, strict where a mistake hides.

import { nearestName, OptionError } from '../errors'
import type { LM, LMOptions } from '../program'
import {
  ARBOR_TRAINER_KEYS,
  LoraConfigSchema,
  OUR_TRAINER_KEYS,
  type TrainerConfig,
  TrainerConfigSchema,
  type TrainKwargs,
} from '../protocol'

/** A LoRA's learning rate below this learns next to nothing in a run of a hundred steps (LoRA wants about ten times the full rate). */
const SLOW_LORA_RATE = 5e-5
const DEFAULT_LORA_RATE = 3e-4

/**
 * What Arbor's client sends when train_kwargs lacks the key; only mask_truncated_completions differs. Arbor sends true, where it has no
 * effect on the loss; here it has one, and a small model must be taught not to ramble on until it is cut.
 */
const CLIENT_DEFAULTS: TrainKwargs = {
  beta: 0,
  lr_scheduler_type: 'constant_with_warmup',
  loss_type: 'dapo',
  scale_rewards: true,
  max_seq_len: null,
  max_prompt_length: null,
  mask_truncated_completions: false,
  report_to: 'none',
  log_completions: true,
  logging_steps: 10,
}

export interface PreparedKwargs {
  readonly trainerConfig: TrainerConfig
  /** What a person should know about the configuration, in full sentences. */
  readonly notes: readonly string[]
}

/**
 * Checks a `trainKwargs` dictionary and fills in the client's defaults.
 * @throws OptionError naming an unknown key with the nearest known one, or the value that is out of range.
 */
export function prepareTrainKwargs(
  kwargs: TrainKwargs,
  run: { rollouts: number; steps: number; groups: number; seed: number },
): PreparedKwargs {
  const known = [...ARBOR_TRAINER_KEYS, ...OUR_TRAINER_KEYS]
  for (const key of Object.keys(kwargs))
    if (!known.includes(key as keyof TrainKwargs)) {
      const near = nearestName(key, known)
      throw new OptionError(`trainKwargs has no "${key}". ${near ? `Did you mean "${near}"?` : `Known: ${known.join(', ')}.`}`)
    }
  const given = { ...kwargs }
  if (given.lora_config) given.lora_config = loraFields(given.lora_config)
  const checked = TrainerConfigSchema.safeParse({
    ...CLIENT_DEFAULTS,
    warmup_steps: 0,
    max_steps: run.steps,
    ...(given.lora_config ? { learning_rate: DEFAULT_LORA_RATE } : {}),
    seed: run.seed,
    ...given,
    num_generations: run.rollouts,
    groups_per_step: run.groups,
  })
  if (!checked.success) {
    const issue = checked.error.issues[0]!
    throw new OptionError(`trainKwargs.${issue.path.join('.')}: ${issue.message} (got ${JSON.stringify(at(given, issue.path))}).`)
  }
  return { trainerConfig: checked.data, notes: notes(checked.data) }
}

/** Plain fields, so that a LoraConfig instance and a spread of one both travel. */
function loraFields(lora: object): TrainerConfig['lora_config'] {
  const { error, data } = LoraConfigSchema.safeParse({ ...lora })
  if (!error) return data
  const issue = error.issues[0]!
  throw new OptionError(`trainKwargs.lora_config.${issue.path.join('.')}: ${issue.message}`)
}

function notes(config: TrainerConfig): string[] {
  const out: string[] = []
  if (config.lora_config && config.learning_rate > 0 && config.learning_rate < SLOW_LORA_RATE)
    out.push(
      `learning_rate ${config.learning_rate} is low for a LoRA: a LoRA wants about ten times the rate of full training, and runs under a hundred steps rather more. Expect the reward to stand still; 3e-4 to 5e-4 moves it.`,
    )
  if (!config.lora_config)
    out.push(
      'No lora_config: all weights are trained, and every checkpoint is a whole model. Give a LoraConfig to train an adapter.',
    )
  if (config.lora_config && config.lora_config.lora_dropout > 0)
    out.push(
      `lora_dropout ${config.lora_config.lora_dropout} is accepted and not applied: with it the model that samples and the model that trains would differ.`,
    )
  if (Math.max(config.num_training_gpus, config.num_inference_gpus) > 1)
    out.push(
      `The GPU split (${config.num_inference_gpus} for rollouts, ${config.num_training_gpus} for training) is kept where the server has that many (startServer's gpus); else all that it has do both.`,
    )
  if (config.mask_truncated_completions)
    out.push('Completions cut at max_tokens are left out of the loss (mask_truncated_completions).')
  return out
}

function at(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((inner, key) => (inner as Record<PropertyKey, unknown> | undefined)?.[key], value)
}

/** An LM without sampling values takes those of trainKwargs, and the trainer those of the LM: both must sample at one temperature. */
export function agreeOnSampling(lm: LM, kwargs: TrainKwargs): { lm: LMOptions; kwargs: TrainKwargs } {
  const names = {
    temperature: 'temperature',
    topK: 'top_k',
    topP: 'top_p',
    minP: 'min_p',
    repetitionPenalty: 'repetition_penalty',
  } as const
  const forLm: Record<string, number> = {}
  const forTrainer: Record<string, number> = {}
  for (const [name, wire] of Object.entries(names) as [keyof typeof names, (typeof names)[keyof typeof names]][]) {
    const [own, wanted] = [lm.options[name] ?? null, kwargs[wire] ?? null]
    if (own !== null && wanted !== null && own !== wanted)
      throw new OptionError(
        `The LM samples with ${name} ${own}, trainKwargs says ${wire}: ${wanted}. Rollouts and training must agree: change one of them.`,
      )
    const value = own ?? wanted ?? (name === 'temperature' ? 1 : null)
    if (value !== null) forLm[name] = forTrainer[wire] = value
  }
  return { lm: forLm, kwargs: forTrainer }
}
