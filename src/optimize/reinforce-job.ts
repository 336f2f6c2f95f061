// A GRPO job as arbor-ai's Python client runs one: the same requests in the same order, also to a real Arbor. ArborJob is the one for our own server.

import { setTimeout } from 'node:timers/promises'
import { OptionError, ProtocolError } from '../errors'
import { bareModelName, type GRPOStatus, type StepSample } from '../protocol'
import { failure, reach, withSlash } from './arbor-job'

/** One group of rollouts, to be trained under a batch id that the server waits for. */
export interface ReinforceGroup {
  readonly batch_id: number
  readonly group: readonly StepSample[]
  readonly metrics?: Readonly<Record<string, number>>
}

/** What DSPy's GRPO asks of whoever trains. */
export interface ReinforceJob {
  /** The name under which the newest weights answer. */
  readonly model: string
  getStatus(): Promise<{ readonly pending_batch_ids: readonly number[] }>
  step(groups: readonly ReinforceGroup[]): Promise<void>
  saveCheckpoint(name: string, details: CheckpointDetails): Promise<void>
  terminate(): Promise<void>
  /** Waits before the next question for the status. */
  pause(): Promise<void>
}

export interface CheckpointDetails {
  readonly score?: number
  readonly metadata?: Readonly<Record<string, unknown>>
}

/** What arbor-ai sends where train_kwargs says nothing; keys that aren't here are never sent. */
const DEFAULTS = {
  temperature: 1,
  beta: 0,
  per_device_train_batch_size: 8,
  learning_rate: 1e-6,
  gradient_accumulation_steps: 1,
  gradient_checkpointing: true,
  lr_scheduler_type: 'constant_with_warmup',
  warmup_steps: 10,
  max_prompt_length: null,
  max_completion_length: null,
  soft_completion_penalty_length: null,
  mask_truncated_completions: true,
  bf16: false,
  scale_rewards: true,
  gradient_checkpointing_kwargs: null,
  max_grad_norm: 1,
  report_to: 'none',
  log_completions: true,
  logging_steps: 10,
  max_seq_len: null,
  max_steps: 500,
  loss_type: 'dapo',
  num_training_gpus: 1,
  lora_config: null,
  weight_decay: 0,
} as const

type Post = (url: URL, body: object) => Promise<GRPOStatus>

export class ArborReinforceJob implements ReinforceJob {
  /** Saved under their names, with the scores they were saved for. */
  readonly checkpoints: Record<string, { readonly checkpoint_dir?: string; score?: number; metadata?: unknown }> = {}
  lastCheckpoint: string | null = null
  #model: string
  #id = ''

  /** @throws OptionError without `num_generations` */
  constructor(
    readonly apiBase: string,
    model: string,
    readonly trainKwargs: Readonly<Record<string, unknown>>,
    private readonly post: Post = postJson,
  ) {
    if (trainKwargs['num_generations'] === undefined)
      throw new OptionError('trainKwargs lacks num_generations: the number of rollouts in a group.')
    this.#model = model
  }

  get model(): string {
    return this.#model
  }

  /** Opens the job on the server. Blocks until the model is loaded; no timeout. */
  async initialize(): Promise<void> {
    const model = bareModelName(this.#model)
    const kwargs = this.trainKwargs
    const trainer_config = Object.fromEntries([
      ['num_generations', kwargs['num_generations']],
      ...Object.entries(DEFAULTS).map(([key, value]) => [key, key in kwargs ? kwargs[key] : value]),
    ])
    const multi = {
      num_inference_gpus: kwargs['num_inference_gpus'] ?? 1,
      num_training_gpus: trainer_config['num_training_gpus'],
    }
    const status = await this.#call('initialize', {
      model,
      trainer_config,
      inference_config: { model, max_seq_len: trainer_config['max_seq_len'] },
      gpu_config: { type: 'multi', multi },
    })
    this.#id = status.job_id
    this.#take(status)
  }

  getStatus(): Promise<GRPOStatus> {
    return this.#call('status', { job_id: this.#id })
  }

  /** A request for each group. */
  async step(groups: readonly ReinforceGroup[]): Promise<void> {
    for (const { group, batch_id, metrics } of groups) {
      const body = { job_id: this.#id, model: bareModelName(this.#model), batch: group, batch_id }
      this.#take(await this.#call('step', metrics ? { ...body, metrics } : body))
    }
  }

  async saveCheckpoint(name: string, { score, metadata }: CheckpointDetails): Promise<void> {
    const body = { checkpoint_name: name, job_id: this.#id, ...(metadata ? { metadata } : {}) }
    const { checkpoints, last_checkpoint: last } = await this.#call('checkpoint', body)
    if (!last) throw new ProtocolError(`The server saved ${name}, but does not say where.`, { status: 200 })
    const record = checkpoints[last]
    this.checkpoints[last] = { ...record, ...(score === undefined ? {} : { score }), metadata: record?.metadata ?? metadata }
    this.lastCheckpoint = last
  }

  async terminate(): Promise<void> {
    this.#take(await this.#call('terminate', { job_id: this.#id }))
  }

  async pause(): Promise<void> {
    await setTimeout(1000)
  }

  #call(name: string, body: object): Promise<GRPOStatus> {
    return this.post(new URL(`fine_tuning/grpo/${name}`, withSlash(this.apiBase)), body)
  }

  #take({ current_model: model }: GRPOStatus): void {
    this.#model = `openai/arbor:${bareModelName(model)}`
  }
}

async function postJson(url: URL, body: object): Promise<GRPOStatus> {
  const headers = { 'content-type': 'application/json' }
  const response = await reach(url, { method: 'POST', headers, body: JSON.stringify(body) })
  if (!response.ok) throw await failure(response, url.pathname)
  return (await response.json()) as GRPOStatus
}
