// All fine-tuning jobs of the process: made, trained one after the other, found again, also after a restart.

import type { z } from 'zod'
import type { Engine, ModelInfo } from '../engine/engine'
import { OptionError } from '../errors'
import { bareModelName, type FineTuningRequestSchema } from '../protocol'
import { FileStore } from './file-store'
import { FineTuningJob } from './fine-tuning-job'
import { HttpError } from './http-errors'
import { finetunePlan } from './hyperparameters'
import { newJobId } from './job-id'
import { JobQueue } from './job-queue'
import { RunFolder } from './run-folder'
import type { TextCodec } from './services'
import { parseTrainingFile } from './training-file'

type CreateRequest = z.output<typeof FineTuningRequestSchema>

export interface FineTuningOptions {
  readonly engine: Engine
  readonly model: ModelInfo
  /** The base model's names; the first is the one shown. */
  readonly modelNames: readonly string[]
  readonly codec: TextCodec
  readonly storage: string
  readonly version: string
  readonly log?: (line: string) => void
}

export class FineTuning {
  readonly files: FileStore
  readonly #jobs = new Map<string, FineTuningJob>()
  readonly #queue = new JobQueue()

  constructor(readonly options: FineTuningOptions) {
    this.files = new FileStore(options.storage)
  }

  /** Oldest first. */
  list(): FineTuningJob[] {
    return [...this.#jobs.values()]
  }

  find(id: string): FineTuningJob | null {
    return this.#jobs.get(bareModelName(id)) ?? null
  }

  /** Makes a job and returns at once; it trains when the jobs before it are done. @throws HttpError 400 or 404 for what can't be trained */
  create(request: CreateRequest): FineTuningJob {
    const { engine, model, modelNames, codec, storage, version, log } = this.options
    const plan = finetunePlan(request.hyperparameters, model.contextLength)
    const from = this.#start(request.model, plan.lora)
    const { filename, purpose } = this.files.get(request.training_file)
    if (purpose !== 'fine-tune')
      throw new HttpError(400, `The file ${request.training_file} was uploaded for "${purpose}", not for "fine-tune".`, {
        param: 'training_file',
      })
    const read = () => parseTrainingFile(this.files.text(request.training_file), filename)
    read() // what can't be trained on is told now, not when the job's turn comes
    const taken = (name: string) => this.#jobs.has(name) || RunFolder.at(storage, name).exists
    const id = newJobId({ kind: 'ftjob', model: modelNames[0]!, runName: request.suffix ?? null }, taken)
    const folder = RunFolder.at(storage, id)
    const config = { job_id: id, created: Date.now() / 1000, ...request }
    folder.create({ config, environment: { arbor_nb: version, node: process.version, model } })
    const common = { engine, codec, folder, contextLength: model.contextLength, ...(log ? { log } : {}) }
    const job = new FineTuningJob({ ...common, id, model: request.model, fileId: request.training_file, read, plan, from })
    this.#jobs.set(id, job)
    void this.#queue.run(() => job.run())
    return job
  }

  /** The server ends: what runs stops after its update. Resolves when the engine is no longer asked. */
  async interrupt(): Promise<void> {
    for (const job of this.#jobs.values()) if (!job.ended) job.stop('the server was ended')
    await this.#queue.idle()
  }

  /** Resolves when all jobs made so far have ended. */
  idle(): Promise<void> {
    return this.#queue.idle()
  }

  /** The weights a new job starts from: null for the base's, else the folder of another job's. */
  #start(name: string, lora: unknown): string | null {
    const bare = bareModelName(name)
    const { modelNames } = this.options
    if (modelNames.includes(bare)) return null
    const weights = this.find(bare)?.weights
    if (!weights)
      throw new HttpError(404, `This server has the base model "${modelNames[0]}", not "${bare}".`, {
        code: 'model_not_found',
        param: 'model',
      })
    if (JSON.stringify(weights.plan.lora) === JSON.stringify(lora)) return weights.dir
    throw new OptionError(
      `"${bare}" was trained with the lora_config ${JSON.stringify(weights.plan.given.lora_config)}; a job that goes on from it needs the same.`,
    )
  }
}
