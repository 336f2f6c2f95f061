// Everything that crosses the wire, with its wire names; types are inferred, never written twice.
// Types that reach a notebook's variables are interfaces: the compiler can then name them without zod's own types, wherever zod is installed.
// Arbor's own fields keep Arbor's names and defaults; what we add is marked "ours" and never sent to a real Arbor.

import { z } from 'zod'

// ---------------------------------------------------------------- LoRA

export const LORA_TARGET_MODULES = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'] as const

/** peft's LoraConfig, as far as a causal LM needs it. `target_modules` is a list or 'all-linear'. */
export const LoraConfigSchema = z.strictObject({
  r: z.int().min(1).max(512),
  lora_alpha: z.number().positive(),
  target_modules: z.union([z.literal('all-linear'), z.array(z.enum(LORA_TARGET_MODULES)).min(1)]),
  lora_dropout: z.number().min(0).max(1),
  bias: z.literal('none').optional(),
  task_type: z.literal('CAUSAL_LM').optional(),
})
export interface LoraConfigFields extends z.infer<typeof LoraConfigSchema> {}

// ---------------------------------------------------------------- trainer_config

export const LOSS_TYPES = ['grpo', 'bnpo', 'dr_grpo', 'dapo', 'cispo', 'sapo', 'luspo', 'vespo'] as const
export const LR_SCHEDULES = ['constant', 'constant_with_warmup', 'linear', 'cosine'] as const

const arborTrainerConfig = {
  num_generations: z.int().min(2).default(8),
  temperature: z.number().min(0).default(1),
  beta: z.number().min(0).default(0.001),
  per_device_train_batch_size: z.int().min(1).default(8),
  gradient_accumulation_steps: z.int().min(1).default(1),
  learning_rate: z.number().min(0).default(1e-6),
  lr_scheduler_type: z.enum(LR_SCHEDULES).default('linear'),
  warmup_steps: z.int().min(0).default(0),
  max_steps: z.int().min(1).default(500),
  weight_decay: z.number().min(0).default(0),
  max_grad_norm: z.number().min(0).default(1),
  loss_type: z.enum(LOSS_TYPES).default('dr_grpo'),
  scale_rewards: z.union([z.boolean(), z.enum(['group', 'batch', 'none'])]).default(false),
  mask_truncated_completions: z.boolean().default(true),
  soft_completion_penalty_length: z.int().min(0).nullable().default(null),
  max_seq_len: z.int().min(1).nullable().default(2048),
  max_prompt_length: z.int().min(1).nullable().default(512),
  max_completion_length: z.int().min(1).nullable().default(null),
  gradient_checkpointing: z.boolean().default(false),
  gradient_checkpointing_kwargs: z.record(z.string(), z.unknown()).nullable().default(null),
  bf16: z.boolean().default(false),
  fp16: z.boolean().default(false),
  lora_config: LoraConfigSchema.nullable().default(null),
  num_training_gpus: z.int().min(0).default(1),
  num_inference_gpus: z.int().min(0).default(1),
  report_to: z.union([z.string(), z.array(z.string())]).default('none'),
  log_completions: z.boolean().default(false),
  logging_steps: z.number().min(0).default(500),
  generation_batch_size: z.int().nullable().default(null),
  async_generation_timeout: z.number().default(600),
}

/** Ours: a real Arbor refuses these. */
const ourTrainerConfig = {
  /** A GRPO step is one update over this many groups, posted as one list. null = one group is one update, as in Arbor. */
  groups_per_step: z.int().min(1).nullable().default(null),
  seed: z.int().min(0).default(0),
  epsilon: z.number().min(0).default(0.2),
  epsilon_high: z.number().min(0).nullable().default(0.28),
  delta: z.number().positive().nullable().default(null),
  importance_sampling_level: z.enum(['token', 'sequence']).default('token'),
  use_bias_correction_kl: z.boolean().default(true),
  entropy_coef: z.number().default(0),
  /** The entropy bonus's weight follows the policy: up while its mean entropy (nats a token) is at most the target, down while above. */
  use_adaptive_entropy: z.boolean().default(false),
  entropy_target: z.number().min(0).default(0.2),
  entropy_coef_delta: z.number().min(0).default(0.005),
  entropy_coef_min: z.number().min(0).default(0),
  entropy_coef_max: z.number().min(0).default(1),
  sapo_temperature_pos: z.number().positive().default(1),
  sapo_temperature_neg: z.number().positive().default(1.05),
  vespo_k_pos: z.number().min(0).default(2),
  vespo_lambda_pos: z.number().min(0).default(3),
  vespo_k_neg: z.number().min(0).default(3),
  vespo_lambda_neg: z.number().min(0).default(2),
  /** 'normalize_then_sum' (GDPO) normalises each of a sample's `rewards` within its group before they are weighted and summed. */
  multi_objective_aggregation: z.enum(['sum_then_normalize', 'normalize_then_sum']).default('sum_then_normalize'),
  /** One weight for each of a sample's `rewards`; null: all 1. */
  reward_weights: z.array(z.number()).min(1).nullable().default(null),
  top_entropy_quantile: z.number().min(0).max(1).default(1),
  off_policy_mask_threshold: z.number().nullable().default(null),
  sampler_correction: z.enum(['none', 'token_truncate', 'token_mask', 'sequence_truncate', 'sequence_mask']).default('none'),
  sampler_correction_clip_min: z.number().min(0).nullable().default(null),
  sampler_correction_clip_max: z.number().positive().default(3),
  /** Optimizer updates on the same rollouts; from the second on the ratio differs from 1. */
  num_iterations: z.int().min(1).default(1),
  adam_beta1: z.number().min(0).max(1).default(0.9),
  adam_beta2: z.number().min(0).max(1).default(0.999),
  adam_epsilon: z.number().positive().default(1e-8),
  top_k: z.int().nullable().default(null),
  top_p: z.number().nullable().default(null),
  min_p: z.number().nullable().default(null),
  repetition_penalty: z.number().nullable().default(null),
}

export const ARBOR_TRAINER_KEYS = Object.keys(arborTrainerConfig) as (keyof typeof arborTrainerConfig)[]
export const OUR_TRAINER_KEYS = Object.keys(ourTrainerConfig) as (keyof typeof ourTrainerConfig)[]
export const TrainerConfigSchema = z.strictObject({ ...arborTrainerConfig, ...ourTrainerConfig })
/** With every default filled in: what the server keeps. */
export type TrainerConfig = z.infer<typeof TrainerConfigSchema>
/** What a caller writes (`trainKwargs`): everything optional. */
export interface TrainKwargs extends Omit<z.input<typeof TrainerConfigSchema>, 'lora_config'> {
  lora_config?: LoraConfigFields | null | undefined
}

// ---------------------------------------------------------------- GRPO calls

export const MessageSchema = z.looseObject({ role: z.string(), content: z.string() })
export type Message = { role: string; content: string }

export const InitializeRequestSchema = z.strictObject({
  run_name: z
    .string()
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, 'letters, digits, ".", "_" and "-", at most 64')
    .nullish(),
  model: z.string().min(1),
  trainer_config: TrainerConfigSchema,
  inference_config: z
    .strictObject({
      model: z.string().optional(),
      max_seq_len: z.int().nullish(),
      num_gpus: z.int().nullish(),
      owner: z.unknown().optional(),
      log_file_path: z.string().nullish(),
    })
    .optional(),
  gpu_config: z
    .strictObject({
      type: z.string(),
      multi: z.strictObject({ num_inference_gpus: z.int(), num_training_gpus: z.int() }).optional(),
    })
    .optional(),
  /** Ours: continue this job from its last checkpoint (same id, same folder). */
  resume_from: z.string().nullish(),
})
export type InitializeRequest = z.input<typeof InitializeRequestSchema>

export const JobRequestSchema = z.strictObject({ job_id: z.string() })

/** Ours: the header of a request that a client makes at one moment with others: a name for the moment, and how many requests it has, as in `7f3a/64`. */
export const TOGETHER = 'x-arbor-together'

export const StepSampleSchema = z.strictObject({
  messages: z.array(MessageSchema).min(1),
  completion: z.union([MessageSchema, z.array(MessageSchema).min(1)]),
  reward: z.number(), // zod refuses NaN and infinities
  /** Ours: `${response.id}#${choice.index}` of the chat completion that was sampled; the very tokens are trained. */
  completion_id: z.string().optional(),
  /** Ours: what each reward function gave, null where it gave nothing; `reward` is their weighted sum. */
  rewards: z.array(z.number().nullable()).min(1).optional(),
})
export type StepSample = z.infer<typeof StepSampleSchema>

/**
 * The samples of a group. Ours: one whose messages are those of the sample before may leave them out, as most of a step's bytes are prompts. Either
 * way they are one list for both then.
 */
const SamplesSchema = z
  .array(StepSampleSchema.partial({ messages: true }))
  .min(1)
  .transform((samples, context) => {
    if (!samples[0]!.messages)
      context.addIssue({ code: 'custom', path: [0, 'messages'], message: 'a first sample needs its messages' })
    let last: StepSample['messages'] = []
    return samples.map(({ messages = last, ...rest }): StepSample => {
      if (!sameMessages(messages, last)) last = messages
      return { messages: last, ...rest }
    })
  })

/** Whether two conversations are equal, field by field. */
export function sameMessages(a: readonly Message[], b: readonly Message[]): boolean {
  const same = (one: Message, other: Message) => {
    const keys = Object.keys(one) as (keyof Message)[]
    return keys.length === Object.keys(other).length && keys.every((key) => one[key] === other[key])
  }
  return a === b || (a.length === b.length && a.every((message, i) => same(message, b[i]!)))
}

/** Ours: what the charts call a group. Parallel to the list of groups. */
export const GroupInfoSchema = z.strictObject({
  predictor: z.string(),
  example: z.union([z.string(), z.int()]),
  /** A few words that name the example to a person, e.g. its question. */
  title: z.string(),
})
export type GroupInfo = z.infer<typeof GroupInfoSchema>

export const StepRequestSchema = z.strictObject({
  job_id: z.string(),
  model: z.string(),
  batch_id: z.int(),
  /** One group, or (ours, with groups_per_step) the list of all groups of the step. */
  batch: z.union([SamplesSchema, z.array(SamplesSchema).min(1)]),
  metrics: z.record(z.string(), z.number().nullable()).optional(),
  groups: z.array(GroupInfoSchema).optional(),
})
export type StepRequest = z.input<typeof StepRequestSchema>

export const CHECKPOINT_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/
export const CheckpointRequestSchema = z.strictObject({
  job_id: z.string(),
  checkpoint_name: z.string().regex(CHECKPOINT_NAME, 'letters, digits, ".", "_" and "-", at most 128; no slashes'),
  metadata: z.record(z.string(), z.unknown()).nullish(),
})

/** Ours: the job's policy becomes that of a checkpoint again: one of its own, `best` (by validation score) or `last`. */
export const RestoreRequestSchema = z.strictObject({
  job_id: z.string(),
  checkpoint_name: z.string().regex(CHECKPOINT_NAME, 'a checkpoint of this job, "best" or "last"').default('best'),
})

export const CheckpointRecordSchema = z.strictObject({
  checkpoint_name: z.string(),
  checkpoint_dir: z.string(),
  global_step: z.int(),
  requested: z.boolean(),
  metadata: z.record(z.string(), z.unknown()).nullable(),
  timestamp: z.number(),
})
export type CheckpointRecord = z.infer<typeof CheckpointRecordSchema>

export const JOB_STATUSES = [
  'pending',
  'pending_pause',
  'pending_resume',
  'paused',
  'validating_files',
  'queued',
  'running',
  'succeeded',
  'failed',
  'cancelled',
  'pending_cancel',
  'created',
] as const

/** Arbor's six fields, exactly. */
export const GRPOStatusSchema = z.strictObject({
  job_id: z.string(),
  status: z.enum(JOB_STATUSES).nullable(),
  current_model: z.string(),
  checkpoints: z.record(z.string(), CheckpointRecordSchema),
  last_checkpoint: z.string().nullable(),
  pending_batch_ids: z.array(z.int()),
})
export type GRPOStatus = z.infer<typeof GRPOStatusSchema>

// ---------------------------------------------------------------- step records (ours)

export const GroupRecordSchema = z.strictObject({
  predictor: z.string(),
  example: z.union([z.string(), z.number()]),
  title: z.string(),
  rewards: z.array(z.number()),
  advantages: z.array(z.number()),
  /** Completion tokens. */
  lengths: z.array(z.int()),
  completions: z.array(z.string()),
  /** How each completion's tokens were found: by its id, by its exact text, or tokenized again. */
  sources: z.array(z.enum(['id', 'text', 'tokenized'])),
  truncated: z.array(z.boolean()),
})
export interface GroupRecord extends z.infer<typeof GroupRecordSchema> {}

/** One optimizer step, as written to steps.jsonl and sent to whoever listens. */
export const StepRecordSchema = z.strictObject({
  job_id: z.string(),
  step: z.int(), // from 1
  policy_version: z.int(),
  time: z.number(), // unix seconds
  reward: z.number(), // mean
  reward_std: z.number(), // mean of the groups' standard deviations (n − 1)
  reward_min: z.number(),
  reward_max: z.number(),
  /** Share of rows in groups without spread: they teach nothing. */
  frac_reward_zero_std: z.number(),
  validation_score: z.number().nullable(), // percent
  format_failures: z.int().nullable(),
  loss: z.number(),
  grad_norm: z.number(),
  learning_rate: z.number(),
  entropy: z.number(),
  /** Weight of the entropy bonus in this step; missing where there is none. */
  entropy_coef: z.number().optional(),
  kl: z.number().nullable(),
  clip_ratio_low: z.number(),
  clip_ratio_high: z.number(),
  clip_ratio_region: z.number(),
  /** Smallest and largest share of a completion's tokens; missing without an update. */
  clip_ratio_low_min: z.number().optional(),
  clip_ratio_high_max: z.number().optional(),
  /** |stored logprob − training pass logprob| over trained tokens of matched rows; rollouts under truncation or penalty apart. null: nothing to compare. */
  logprob_gap_max: z.number().nullable(),
  logprob_gap_mean: z.number().nullable(),
  /** Rollouts that a grammar constrained (response_format), and their largest gap; missing where there are none. */
  rows_constrained: z.int().optional(),
  logprob_gap_max_constrained: z.number().optional(),
  completion_length_mean: z.number(),
  completion_length_min: z.number(),
  completion_length_max: z.number(),
  truncated_share: z.number(),
  /** Tokens computed with shared prefixes, and what they would be without. */
  tokens: z.int(),
  tokens_unshared: z.int(),
  rows_trained: z.int(),
  rows_total: z.int(),
  seconds_train: z.number(),
  /** From the previous record (or the job's start) to this step's arrival: rollouts, metric, validation. */
  seconds_between: z.number(),
  /** What a reader should know, once each: dropout ignored, completions tokenized again, … */
  notes: z.array(z.string()),
  groups: z.array(GroupRecordSchema),
})
export interface StepRecord extends Omit<z.infer<typeof StepRecordSchema>, 'groups'> {
  groups: GroupRecord[]
}

// ---------------------------------------------------------------- files and fine-tuning jobs

/** OpenAI's clients write "auto" where they have no wish, Python's None; both mean the default. */
function wish<Schema extends z.ZodType>(schema: Schema) {
  return z.preprocess((value) => (value === 'auto' || value === null ? undefined : value), schema)
}

/** Supervised fine-tuning, in the names of TRL's SFTConfig; OpenAI's `n_epochs` and `batch_size` mean the same as theirs. */
export const HyperparametersSchema = z.strictObject({
  num_train_epochs: wish(z.int().min(1).max(1000).optional()),
  n_epochs: wish(z.int().min(1).max(1000).optional()),
  /** Conversations an update, times `gradient_accumulation_steps`. */
  per_device_train_batch_size: wish(z.int().min(1).optional()),
  batch_size: wish(z.int().min(1).optional()),
  gradient_accumulation_steps: wish(z.int().min(1).default(1)),
  /** Default: 2e-4 for a LoRA, 1e-5 for all weights. */
  learning_rate: wish(z.number().min(0).optional()),
  /** OpenAI's: of the default rate. */
  learning_rate_multiplier: wish(z.number().positive().optional()),
  lr_scheduler_type: wish(z.enum(LR_SCHEDULES).default('linear')),
  warmup_steps: wish(z.int().min(0).default(0)),
  weight_decay: wish(z.number().min(0).default(0)),
  max_grad_norm: wish(z.number().min(0).default(1)),
  /** Conversations with more tokens are left out. Default: the model's context. */
  max_seq_len: wish(z.int().min(2).optional()),
  max_seq_length: wish(z.int().min(2).optional()),
  /** null: all weights are trained. */
  lora_config: LoraConfigSchema.nullable().default(null),
  /** DSPy's and older Arbor's way to ask for a LoRA without naming its shape. */
  use_peft: wish(z.boolean().default(false)),
  seed: wish(z.int().min(0).default(0)),
  adam_beta1: wish(z.number().min(0).max(1).default(0.9)),
  adam_beta2: wish(z.number().min(0).max(1).default(0.999)),
  adam_epsilon: wish(z.number().positive().default(1e-8)),
  // Taken and of no effect: they are about machines and reports that aren't ours.
  bf16: z.unknown().optional(),
  fp16: z.unknown().optional(),
  device: z.unknown().optional(),
  gradient_checkpointing: z.unknown().optional(),
  gradient_checkpointing_kwargs: z.unknown().optional(),
  logging_steps: z.unknown().optional(),
  num_training_gpus: z.unknown().optional(),
  output_dir: z.unknown().optional(),
  packing: z.unknown().optional(),
  /** 'wandb', 'tensorboard', 'all', 'none' or a list. */
  report_to: wish(z.union([z.string(), z.array(z.string())]).optional()),
})
/** With the defaults that don't depend on one another filled in. */
export type Hyperparameters = z.output<typeof HyperparametersSchema>

type Keys = keyof Hyperparameters
/** `trainKwargs` of BootstrapFinetune: everything optional. */
export type FinetuneKwargs = { readonly [key in Exclude<Keys, 'lora_config'>]?: Hyperparameters[key] | null } & {
  readonly lora_config?: LoraConfigFields | null
}

export const FineTuningRequestSchema = z.looseObject({
  model: z.string().min(1),
  training_file: z.string().min(1),
  hyperparameters: HyperparametersSchema.nullish(),
  /** OpenAI's later place for them. */
  method: z
    .looseObject({
      type: z.string(),
      supervised: z.looseObject({ hyperparameters: HyperparametersSchema.nullish() }).nullish(),
    })
    .nullish(),
  seed: z.int().min(0).nullish(),
  /** Not looked at; the job's events say so. */
  validation_file: z.string().nullish(),
  /** A word for the job's name. */
  suffix: z
    .string()
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, 'letters, digits, ".", "_" and "-", at most 64')
    .nullish(),
})

export interface FileObject {
  readonly id: string
  readonly object: 'file'
  readonly bytes: number
  readonly created_at: number // unix seconds
  readonly filename: string
  readonly purpose: string
  readonly status: 'processed'
}

/** OpenAI's job object, as far as clients look at it. */
export interface FineTuningJobObject {
  readonly id: string
  readonly object: 'fine_tuning.job'
  readonly model: string
  readonly created_at: number
  readonly finished_at: number | null
  readonly status: (typeof JOB_STATUSES)[number]
  readonly training_file: string
  readonly validation_file: null
  /** The name under which the trained model answers; null before it is trained. */
  readonly fine_tuned_model: string | null
  /** Unix seconds; null while nobody can tell. */
  readonly estimated_finish: number | null
  readonly error: { readonly code: string; readonly message: string; readonly param: string | null } | null
  readonly hyperparameters: Readonly<Record<string, unknown>>
  readonly trained_tokens: number | null
  readonly organization_id: string
  readonly result_files: readonly string[]
  readonly seed: number
}

/** One update of a fine-tuning job. */
export interface FineTuningStep {
  readonly step: number // from 1
  readonly steps: number
  readonly epoch: number // updates so far over updates an epoch
  /** Mean over the batch's trained tokens before the update, nats. */
  readonly loss: number
  readonly learning_rate: number
  readonly grad_norm: number
  readonly tokens: number
  readonly seconds: number
}

interface EventHead {
  readonly object: 'fine_tuning.job.event'
  readonly id: string
  readonly created_at: number
  readonly level: 'info' | 'warn' | 'error'
  readonly message: string
}

/** A metrics event tells an update, with the `source` that Arbor's watch_job looks for; it looks into the `data` of every event, so none is null. */
export type FineTuningEvent = EventHead &
  (
    | { readonly type: 'message'; readonly data: Readonly<Record<string, never>> }
    | { readonly type: 'metrics'; readonly data: FineTuningStep & { readonly source: 'training_log' } }
  )

/** The same of a GRPO job: `data` has the record's numbers. */
export type GrpoEvent = EventHead & {
  readonly type: 'message' | 'metrics'
  readonly data: Readonly<Record<string, string | number | null>>
}

// ---------------------------------------------------------------- chat and completions

/** Constrained decoding: the answer is JSON, of any object or of one schema. */
export const ResponseFormatSchema = z
  .discriminatedUnion('type', [
    z.looseObject({ type: z.literal('text') }),
    z.looseObject({ type: z.literal('json_object') }),
    z.looseObject({
      type: z.literal('json_schema'),
      json_schema: z.looseObject({
        name: z.string().nullish(),
        schema: z
          .union([z.record(z.string(), z.unknown()), z.boolean()])
          .nullish()
          .describe('JSON Schema; none: any JSON.'),
        strict: z.boolean().nullish().describe('Of no effect: the schema always holds.'),
      }),
    }),
  ])
  .describe('The answer is JSON by constrained decoding: any object, or what a schema holds for.')
export type WireResponseFormat = z.infer<typeof ResponseFormatSchema>

const OFF_AT_DEFAULT = 'Refused unless it is at its default: it would be ignored.'

/** What both kinds of completion take: OpenAI's fields plus vLLM's sampling extensions. */
const samplingFields = {
  model: z
    .string()
    .min(1)
    .describe('The base, a job, a checkpoint (JOB@best) or an adapter; prefixes as "openai/" and "arbor:" are taken off.'),
  temperature: z.number().min(0).max(10).nullish().describe('1 unless given; 0 takes the likeliest token.'),
  top_p: z.number().gt(0).max(1).nullish(),
  top_k: z.int().min(-1).nullish().describe('0 and -1: off.'),
  min_p: z.number().min(0).max(1).nullish().describe('Tokens less likely than this share of the likeliest are left out.'),
  repetition_penalty: z.number().positive().nullish().describe('Of tokens in prompt and completion; 1: off.'),
  max_tokens: z.int().min(0).nullish().describe('At most the rest of the context.'),
  n: z.int().min(1).max(128).nullish().describe('Choices of each prompt.'),
  seed: z.int().nullish().describe('The same seed, prompt and weights give the same tokens, whatever else runs.'),
  seeds: z
    .array(z.int())
    .min(1)
    .max(128)
    .nullish()
    .describe('Ours: one choice for each, the very one that a request with this seed and n = 1 gets. Instead of n and seed.'),
  stop: z
    .union([z.string(), z.array(z.string()).max(16)])
    .nullish()
    .describe('Texts before which an answer ends.'),
  stream: z.boolean().nullish().describe('Answer in server-sent events.'),
  stream_options: z.looseObject({ include_usage: z.boolean().nullish().describe('Usage in a last chunk of its own.') }).nullish(),
  response_format: ResponseFormatSchema.nullish(),
  frequency_penalty: z.number().nullish().describe(OFF_AT_DEFAULT),
  presence_penalty: z.number().nullish().describe(OFF_AT_DEFAULT),
  logit_bias: z.record(z.string(), z.number()).nullish().describe(OFF_AT_DEFAULT),
}

/** Fields we do not know are let through, as OpenAI's servers do. */
export const ChatRequestSchema = z.looseObject({
  ...samplingFields,
  messages: z
    .array(
      z.looseObject({
        role: z.string(),
        content: z.union([z.string(), z.array(z.looseObject({ type: z.string(), text: z.string().optional() })), z.null()]),
      }),
    )
    .min(1),
  max_completion_tokens: z.int().min(0).nullish().describe('Goes before max_tokens.'),
  logprobs: z.boolean().nullish().describe('Log-probabilities at temperature 1 of the tokens that carry the text.'),
  top_logprobs: z.int().min(0).max(20).nullish().describe('So many alternatives of each token.'),
  tools: z.array(z.unknown()).nullish().describe(OFF_AT_DEFAULT),
})
export type ChatRequest = z.infer<typeof ChatRequestSchema>

const tokenIds = z.array(z.int().min(0)).min(1)
const promptList = z
  .array(z.union([z.string(), tokenIds]))
  .min(1)
  .max(1024)

export const CompletionRequestSchema = z.looseObject({
  ...samplingFields,
  prompt: z.union([z.string(), tokenIds, promptList]).describe('What to go on with: a text, tokens, or a list of either.'),
  echo: z.boolean().nullish().describe("The prompt's text and, with logprobs, its tokens stand before the completion's."),
  logprobs: z.int().min(0).max(20).nullish().describe('Log-probabilities, with so many alternatives beside each token.'),
  best_of: z.int().min(1).nullish().describe('As n, or left out.'),
  suffix: z.string().nullish().describe(OFF_AT_DEFAULT),
})
export type CompletionRequest = z.infer<typeof CompletionRequestSchema>

export const LaunchRequestSchema = z.looseObject({
  model: z.string().min(1),
  launch_kwargs: z.record(z.string(), z.unknown()).nullish(),
  num_gpus: z.int().nullish(),
  max_seq_len: z.int().nullish(),
})
export const KillRequestSchema = z.looseObject({ job_id: z.string().optional() })

// ---------------------------------------------------------------- what the server tells about itself (ours)

const count = z.int().min(0)

export const HealthSchema = z.strictObject({
  status: z.literal('ok'),
  /** null, with the three below, until one is loaded. */
  model: z.string().nullable(),
  device: z.string().nullable(),
  device_description: z.string().nullable(),
  precision: z.string().nullable(),
  /** Completions that are computed, and that wait for it. */
  queue: z.strictObject({ running: count, waiting: count }),
  /** Unix seconds at which the engine told its queue, seconds and work; it tells between two passes. */
  time: z.number(),
  /** Spent on passes since the start. */
  busy_seconds: z.number(),
  /** Tokens since the start: of prompts, as far as they were not cached; sampled; of training passes. */
  work: z.strictObject({ prompt_tokens: count, sampled_tokens: count, trained_tokens: count }),
  memory: z.strictObject({
    process_bytes: count,
    process_peak_bytes: count,
    /** The device's own, whoever takes it; null where it shares the machine's. */
    device: z.strictObject({ total_bytes: count, free_bytes: count }).nullable(),
    machine_bytes: count,
    machine_free_bytes: count,
  }),
})
export type Health = z.infer<typeof HealthSchema>

/** A training job of either kind, as a list shows it. */
export const JobSummarySchema = z.strictObject({
  id: z.string(),
  kind: z.enum(['grpo', 'sft']),
  /** `interrupted`: its server ended before it did; it may be resumed. */
  status: z.enum([...JOB_STATUSES, 'interrupted']),
  /** Why it failed or was cancelled. */
  reason: z.string().nullable(),
  /** What it started from. */
  model: z.string(),
  /** Whether chat requests may name it while it trains; its checkpoints answer in any case. */
  serves: z.boolean(),
  /** A run of an earlier server, off its folder. */
  earlier: z.boolean(),
  created: z.number(), // unix seconds
  /** Of its newest record, or its end. */
  changed: z.number(),
  /** Updates made, and how many there will be; null where nobody said. */
  step: count,
  steps: count.nullable(),
  /** Mean rewards of the newest steps of a GRPO job, losses of a fine-tuning one's; oldest first. */
  recent: z.array(z.number()),
  /** `score` is what the client noted with it, percent. */
  checkpoints: z.array(z.strictObject({ name: z.string(), step: count, time: z.number(), score: z.number().nullable() })),
  /** The run's folder on the server's machine. */
  folder: z.string(),
})
export type JobSummary = z.infer<typeof JobSummarySchema>

export const JobDetailSchema = JobSummarySchema.extend({
  /** What was asked for, defaults filled in. */
  config: z.record(z.string(), z.unknown()),
  /** Keys of `config` that differ from their defaults. */
  chosen: z.array(z.string()),
})
export type JobDetail = z.infer<typeof JobDetailSchema>

/** A line of rollouts.jsonl: the answers to one prompt, and what came of them. */
export const RolloutGroupSchema = z.looseObject({
  step: z.int(),
  predictor: z.string(),
  example: z.union([z.string(), z.number()]),
  title: z.string(),
  messages: z.array(MessageSchema),
  rollouts: z.array(
    z.looseObject({
      completion: z.string(),
      completion_id: z.string().nullable(),
      reward: z.number(),
      advantage: z.number(),
      tokens: count,
      truncated: z.boolean(),
      source: z.enum(['id', 'text', 'tokenized']),
    }),
  ),
})
export type RolloutGroup = z.infer<typeof RolloutGroupSchema>

/** Arbor's and our clients' prefixes, stripped one after the other. */
export function bareModelName(name: string): string {
  let bare = name
  for (const prefix of ['openai/', 'huggingface/', 'local:', 'arbor:'])
    if (bare.startsWith(prefix)) bare = bare.slice(prefix.length)
  return bare
}
