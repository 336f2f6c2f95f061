// All jobs of the process: initialize, resume, find.

import type { z } from 'zod'
import type { Engine, ModelInfo } from '../engine/engine'
import { OptionError } from '../errors'
import {
  bareModelName,
  type CheckpointRecord,
  type InitializeRequestSchema,
  type StepRecord,
  type TrainerConfig,
} from '../protocol'
import type { CompletionStore } from './completion-store'
import type { FineTuning } from './fine-tuning'
import { gpuNote, gpuWish } from './gpu-wish'
import { GrpoJob } from './grpo-job'
import { HttpError } from './http-errors'
import { newJobId } from './job-id'
import { BatchIds } from './offered-ids'
import { GrpoReports, reporterNames } from './report/job-reports'
import { UPLOAD_MS } from './report/reports'
import { runEnvironment } from './run-environment'
import { baseFields, RunFolder } from './run-folder'
import type { SavedPolicies } from './saved-policies'
import type { TextCodec } from './services'
import { checkTrainerConfig, loraSpec } from './trainer-config'

type Initialize = z.output<typeof InitializeRequestSchema>

export interface JobsSetup {
  readonly engine: Engine
  readonly model: ModelInfo
  readonly modelNames: readonly string[]
  /** Where the base's files lie. */
  readonly basePath?: string
  readonly codec: TextCodec
  readonly completions: CompletionStore
  /** Whose models a job may go on from. */
  readonly fineTuning: FineTuning
  readonly saved: SavedPolicies
  /** Runs are kept in `runs/` under this folder. */
  readonly storage: string
  /** Of this package; written into environment.json. */
  readonly version: string
  /** How often a job saves itself; default every two minutes. */
  readonly autosaveMs?: number
  /** Hears why a job failed. */
  readonly log?: (line: string) => void
}

export class Jobs {
  private readonly jobs = new Map<string, GrpoJob>()
  private readonly opening = new Set<string>()
  private readonly batchIds = new BatchIds()

  constructor(private readonly setup: JobsSetup) {}

  find(id: string): GrpoJob | null {
    return this.jobs.get(id) ?? null
  }

  /** @throws HttpError 400 for an id that no job has */
  get(id: string): GrpoJob {
    const job = this.jobs.get(bareModelName(id))
    if (job) return job
    const known = [...this.jobs.keys()]
    throw new HttpError(
      400,
      `No job "${id}" in this server. ${known.length === 0 ? 'It has no jobs.' : `Jobs: ${known.join(', ')}.`}`,
      {
        code: 'job_not_found',
        param: 'job_id',
      },
    )
  }

  /** Oldest first. */
  list(): GrpoJob[] {
    return [...this.jobs.values()]
  }

  /** Jobs whose weights answer chat requests. */
  serving(): GrpoJob[] {
    return [...this.jobs.values()].filter((job) => job.serves)
  }

  /** Opens a policy for a new job, or continues `resume_from`. */
  async initialize(request: Initialize): Promise<GrpoJob> {
    checkTrainerConfig(request.trainer_config)
    reporterNames(request.trainer_config.report_to)
    const start = this.startOf(request)
    if (request.resume_from) return this.resume(request.resume_from, request)
    const names = { kind: 'grpo', model: this.setup.modelNames[0]!, runName: request.run_name ?? null } as const
    const id = newJobId(names, (name) => this.isTaken(name))
    return this.open(id, request, { start })
  }

  /** Checkpoints what runs, so that it can be resumed. */
  async interrupt(): Promise<void> {
    const all = [...this.jobs.values()]
    await Promise.all(all.map((job) => job.interrupt()))
    await Promise.all(all.map((job) => job.reported(UPLOAD_MS)))
  }

  private async resume(id: string, request: Initialize): Promise<GrpoJob> {
    const folder = RunFolder.at(this.setup.storage, id)
    if (!folder.exists)
      throw new HttpError(400, `There is no run "${id}" in ${this.setup.storage}. Its folder would be ${folder.path}.`, {
        code: 'job_not_found',
        param: 'resume_from',
      })
    if (this.opening.has(id)) throw new HttpError(400, `Job ${id} is being opened by another client.`, { param: 'resume_from' })
    checkSameRun(id, folder.config() as StoredConfig, request)
    this.opening.add(id)
    try {
      await this.takeOver(id)
      const checkpoints = folder.checkpoints()
      const last = checkpoints.at(-1) ?? null
      folder.cutAfter(last?.global_step ?? 0)
      return await this.open(id, request, last ? { last, checkpoints } : { start: this.startOf(request) })
    } finally {
      this.opening.delete(id)
    }
  }

  /** A job that still runs here (its client was interrupted or died) is checkpointed where it is and ended, so that it can go on for another. */
  private async takeOver(id: string): Promise<void> {
    const job = this.jobs.get(id)
    if (!job) return
    await job.handOver()
    this.jobs.delete(id)
  }

  private async open(
    id: string,
    request: Initialize,
    from: { start: string | null } | { last: CheckpointRecord; checkpoints: readonly CheckpointRecord[] },
  ): Promise<GrpoJob> {
    const { engine, codec, completions, model, storage, log, autosaveMs } = this.setup
    const { trainer_config: config } = request
    const folder = RunFolder.at(storage, id)
    const checkpoint = 'last' in from ? from.last.checkpoint_dir : from.start
    this.opening.add(id)
    try {
      const gpus = gpuWish(request)
      const { policyVersion, gpus: got } = await engine.openPolicy(id, {
        lora: loraSpec(config.lora_config),
        seed: config.seed,
        gpus,
        ...(checkpoint === null ? {} : { checkpoint, freshOptimizer: !('last' in from) }),
      })
      const created = folder.exists ? (folder.config() as StoredConfig).created : Date.now() / 1000
      const environment = runEnvironment(this.setup.version, model, config.seed)
      folder.create({ config: { job_id: id, created, ...baseFields(this.setup), ...request }, environment })
      const contextLength = Math.min(request.inference_config?.max_seq_len ?? model.contextLength, model.contextLength)
      const resumed = 'last' in from ? { records: folder.steps(), checkpoints: from.checkpoints } : undefined
      const onBase = this.setup.modelNames.includes(bareModelName(request.model))
      const common = {
        engine,
        codec,
        completions,
        batchIds: this.batchIds,
        policyVersion,
        onBase,
        folder,
        gpus: { wish: gpus, note: gpuNote(gpus, got) },
        reports: openReports(folder, { id, created, environment, request, before: resumed?.records ?? [] }, log),
        ...(log ? { log } : {}),
        ...(autosaveMs === undefined ? {} : { autosaveMs }),
      }
      const job = new GrpoJob({ id, config, contextLength, ...common, ...(resumed ? { resumed } : {}) })
      this.jobs.set(id, job)
      return job
    } finally {
      this.opening.delete(id)
    }
  }

  private isTaken(id: string): boolean {
    return this.jobs.has(id) || this.opening.has(id) || RunFolder.at(this.setup.storage, id).exists
  }

  /** The weights a new job starts from: null for the base's, else the folder of a fine-tuned model's, a checkpoint's or an adapter's. */
  private startOf({ model, trainer_config: config }: Initialize): string | null {
    const bare = bareModelName(model)
    if (this.setup.modelNames.includes(bare)) return null
    const tuned = this.setup.fineTuning.weights(bare, loraSpec(config.lora_config))
    if (tuned !== null) return tuned
    const job = this.jobs.get(bare)
    if (job)
      throw new OptionError(
        `"${bare}" is a job, not a base model. To go on training it, initialize with model "${this.setup.modelNames[0]}" and resume_from "${bare}"; to start another from its weights, with model "${bare}@last" or "${bare}@best".`,
      )
    const saved = this.setup.saved.locate(bare)
    if (saved) return saved.dir
    throw new HttpError(
      404,
      `This server has the base model "${this.setup.modelNames[0]}", not "${bare}". Start one with --model ${bare}.`,
      {
        code: 'model_not_found',
        param: 'model',
      },
    )
  }
}

interface Opened {
  readonly id: string
  readonly created: number
  readonly environment: Record<string, unknown>
  readonly request: Initialize
  readonly before: readonly StepRecord[]
}

function openReports(folder: RunFolder, opened: Opened, log?: (line: string) => void): GrpoReports {
  const { id, created: started, environment, request, before: records } = opened
  const { trainer_config: options, model } = request
  const config = { model, ...options, environment }
  const facts = { id, folder: folder.path, started, config, reportTo: options.report_to, say: (line: string) => log?.(line) }
  return new GrpoReports(facts, options, { records, lines: () => folder.rollouts() })
}

interface StoredConfig {
  readonly created: number
  readonly model: string
  readonly trainer_config: TrainerConfig
}

/** A checkpoint fits only the model and the LoRA shape it was made with. */
function checkSameRun(id: string, stored: StoredConfig, request: Initialize): void {
  if (!stored.trainer_config) throw new OptionError(`Run ${id} is no GRPO run; it cannot be resumed as one.`)
  const shape = (config: TrainerConfig) => JSON.stringify(loraSpec(config.lora_config))
  if (bareModelName(stored.model) !== bareModelName(request.model))
    throw new OptionError(`Run ${id} trained "${stored.model}"; it cannot be resumed with "${request.model}".`)
  if (shape(stored.trainer_config) !== shape(request.trainer_config))
    throw new OptionError(
      `Run ${id} has the lora_config ${JSON.stringify(stored.trainer_config.lora_config)}; it cannot be resumed with ${JSON.stringify(request.trainer_config.lora_config)}.`,
    )
}
