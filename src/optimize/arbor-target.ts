// `target: 'arbor'`: what a real Arbor (arbor-ai 0.2.17) takes of a configuration. It checks late (inference is running by then, a trainer
// dies without a word), so what it would refuse is refused here, before anything is asked of it.

import { OptionError } from '../errors'
import {
  ARBOR_TRAINER_KEYS,
  LORA_TARGET_MODULES,
  OUR_TRAINER_KEYS,
  type TrainerConfig,
  TrainerConfigSchema,
  type TrainKwargs,
} from '../protocol'

/** The longest row where trainKwargs has none: Arbor's own value; its trainer dies of null. */
const ARBORS_MAX_SEQ_LEN = 2048
const ARBORS_LOSSES = ['grpo', 'bnpo', 'dr_grpo', 'dapo']
/** Of our keys these are for the sampler, or filled in by us: never sent, and no mistake. */
const NOT_FOR_THE_TRAINER = ['top_k', 'top_p', 'min_p', 'repetition_penalty', 'seed', 'groups_per_step', 'reward_weights']
/** Arbor has them elsewhere, or doesn't know them. */
const NEVER_SENT = ['fp16', 'num_inference_gpus', 'generation_batch_size', 'async_generation_timeout']

export interface ArborTarget {
  /** In the words of arbor-ai's train_kwargs, num_inference_gpus among them. */
  readonly trainKwargs: Readonly<Record<string, unknown>>
  readonly notes: readonly string[]
}

/**
 * @param config `given` with our defaults filled in
 * @throws OptionError for what a real Arbor doesn't do
 */
export function forArbor(config: TrainerConfig, given: TrainKwargs, run: { steps: number; groups: number }): ArborTarget {
  refuseOurs(config, given)
  const notes: string[] = []
  const updates = run.steps * run.groups
  if (given.max_steps !== undefined && given.max_steps < updates)
    throw new OptionError(
      `trainKwargs.max_steps is ${given.max_steps}, but ${run.steps} steps of ${run.groups} groups are ${updates} updates for a real Arbor, which then stops asking for more. Leave it out, or give at least ${updates}.`,
    )
  if (run.groups > 1)
    notes.push(`A real Arbor makes an update of every group: a step here is up to ${run.groups} updates, one after the other.`)
  const seqLen = config.max_seq_len === null && config.max_completion_length === null
  if (seqLen) notes.push(`max_seq_len is not given, and a real Arbor needs one: ${ARBORS_MAX_SEQ_LEN} tokens.`)
  const sent = ARBOR_TRAINER_KEYS.filter((key) => !NEVER_SENT.includes(key))
  const trainKwargs = {
    ...Object.fromEntries(sent.map((key) => [key, config[key]])),
    gradient_checkpointing: given.gradient_checkpointing ?? true,
    max_steps: given.max_steps ?? updates,
    max_seq_len: seqLen ? ARBORS_MAX_SEQ_LEN : config.max_seq_len,
    per_device_train_batch_size: rowsOfADevice(config, given),
    scale_rewards: scaleRewards(config),
    report_to: reportTo(config),
    lora_config: loraFields(config),
    num_inference_gpus: config.num_inference_gpus,
  }
  return { trainKwargs, notes }
}

function refuseOurs(config: TrainerConfig, given: TrainKwargs): void {
  const defaults = TrainerConfigSchema.parse({}) as Record<string, unknown>
  const ours = OUR_TRAINER_KEYS.filter((key) => !NOT_FOR_THE_TRAINER.includes(key) && given[key] !== undefined)
  const unknown = ours.filter((key) => JSON.stringify(config[key]) !== JSON.stringify(defaults[key]))
  if (unknown.length > 0)
    throw new OptionError(
      `A real Arbor doesn't know trainKwargs.${unknown.join(', trainKwargs.')}: leave out, or train on our server.`,
    )
  if (config.fp16) throw new OptionError("trainKwargs.fp16: a real Arbor doesn't take it; bf16 it does.")
  if (!ARBORS_LOSSES.includes(config.loss_type))
    throw new OptionError(`trainKwargs.loss_type is "${config.loss_type}"; a real Arbor has ${ARBORS_LOSSES.join(', ')}.`)
  if (config.logging_steps % 1 !== 0)
    throw new OptionError(`trainKwargs.logging_steps is ${config.logging_steps}; a real Arbor takes a whole number.`)
}

/** Arbor wants the rows of a step (devices × rows × accumulation) to be a multiple of the group, and a row for every micro-batch. */
function rowsOfADevice(config: TrainerConfig, given: TrainKwargs): number {
  const { num_generations: group, num_training_gpus: gpus, gradient_accumulation_steps: parts } = config
  if (gpus < 1 || config.num_inference_gpus < 1)
    throw new OptionError(
      `A real Arbor trains and samples on different GPUs: num_training_gpus is ${gpus}, num_inference_gpus ${config.num_inference_gpus}; both must be at least 1.`,
    )
  if (group < gpus * parts)
    throw new OptionError(
      `A group of ${group} rollouts can't be cut for ${gpus} GPUs × gradient_accumulation_steps ${parts}: a real Arbor wants numRolloutsPerGrpoStep to be at least ${gpus * parts}.`,
    )
  const least = group / gcd(group, gpus * parts)
  const rows = given.per_device_train_batch_size ?? least
  if ((rows * gpus * parts) % group !== 0)
    throw new OptionError(
      `per_device_train_batch_size ${rows} × ${gpus} GPUs × gradient_accumulation_steps ${parts} is ${rows * gpus * parts}; a real Arbor wants a multiple of the group (${group}). Leave per_device_train_batch_size out, or take a multiple of ${least}.`,
    )
  return rows
}

function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b)
}

function scaleRewards({ scale_rewards: wish }: TrainerConfig): boolean {
  if (wish === 'batch')
    throw new OptionError('trainKwargs.scale_rewards is "batch"; a real Arbor scales by the group (true) or not at all (false).')
  return wish === true || wish === 'group'
}

function reportTo({ report_to: wish }: TrainerConfig): string {
  if (typeof wish === 'string') return wish
  if (wish.length > 1)
    throw new OptionError(`trainKwargs.report_to is ${JSON.stringify(wish)}; a real Arbor takes one, such as "wandb".`)
  return wish[0] ?? 'none'
}

/** Arbor's four fields, the modules one by one. */
function loraFields({ lora_config: lora }: TrainerConfig) {
  if (lora === null) return null
  const { r, lora_alpha, target_modules, lora_dropout } = lora
  if (!Number.isInteger(lora_alpha))
    throw new OptionError(`trainKwargs.lora_config.lora_alpha is ${lora_alpha}; a real Arbor takes a whole number.`)
  return {
    r,
    lora_alpha,
    target_modules: target_modules === 'all-linear' ? [...LORA_TARGET_MODULES] : target_modules,
    lora_dropout,
  }
}
