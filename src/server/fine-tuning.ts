// All fine-tuning jobs of the process: made, trained one after the other, found again, also after a restart.

import type { z } from 'zod'
import type { Engine, LoraSpec, ModelInfo } from '../engine/engine'
import { OptionError } from '../errors'
import { bareModelName, type FineTuningRequestSchema } from '../protocol'
import { FileStore } from './file-store'
import { FineTuningJob } from './fine-tuning-job'
import { HttpError } from './http-errors'
import { askedHyperparameters, finetunePlan } from './hyperparameters'
import { newJobId } from './job-id'
import { JobQueue } from './job-queue'
import { reporterNames, TuningReports } from './report/job-reports'
import { UPLOAD_MS } from './report/reports'
import { runEnvironment } from './run-environment'
import { baseFields, JOB_ID, RunFolder } from './run-folder'
import type { SavedPolicies } from './saved-policies'
import type { TextCodec } from './services'
import { parseTrainingFile } from './training-file'

type CreateRequest = z.output<typeof FineTuningRequestSchema>

export interface FineTuningOptions {
  readonly engine: Engine
  readonly model: ModelInfo
  /** The base model's names; the first is the one shown. */
  readonly modelNames: readonly string[]
  /** Where the base's files lie. */
  readonly basePath?: string
  /** What a job may go on from beside other fine-tuned models. */
  readonly saved: SavedPolicies
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

  /** The job of this name, also one that an earlier process trained. */
  find(name: string): FineTuningJob | null {
    const id = bareModelName(name)
    const known = this.#jobs.get(id) ?? (id.startsWith('ftjob:') ? this.#restore(id) : null)
    if (known) this.#jobs.set(id, known)
    return known
  }

  #restore(id: string): FineTuningJob | null {
    const { engine, model, modelNames, codec, storage, log } = this.options
    if (!JOB_ID.test(id)) return null
    const folder = RunFolder.at(storage, id)
    if (!folder.exists || folder.checkpoints().length === 0) return null
    const config = folder.config() as CreateRequest & { readonly base: string }
    if (!modelNames.includes(config.base)) return null // trained on another model than this server has
    const plan = finetunePlan(config.hyperparameters, model.contextLength)
    const common = { engine, codec, folder, contextLength: model.contextLength, ...(log ? { log } : {}) }
    const given = { id, model: config.model, fileId: config.training_file, read: () => [], plan, from: null, reports: null }
    return FineTuningJob.restored({ ...common, ...given })
  }

  /**
   * The weights of a trained job, for one that goes on from them; null for a name that no trained job has.
   * @throws OptionError where the new job would train another adapter
   */
  weights(name: string, lora: LoraSpec | null): string | null {
    const job = this.find(name)
    const found = job?.weights
    if (!job || !found) return null
    if (JSON.stringify(found.plan.lora) === JSON.stringify(lora)) return found.dir
    const { lora_config: shape } = found.plan.given
    throw new OptionError(
      `"${job.id}" was trained with the lora_config ${JSON.stringify(shape)}; a job that goes on from it needs the same.`,
    )
  }

  /** Makes a job and returns at once; it trains when the jobs before it are done. @throws HttpError 400 or 404 for what can't be trained */
  create(asked: CreateRequest): FineTuningJob {
    const { engine, model, modelNames, codec, storage, version, log } = this.options
    const request = { ...asked, hyperparameters: askedHyperparameters(asked) }
    const plan = finetunePlan(request.hyperparameters, model.contextLength)
    const reportTo = plan.given.report_to ?? 'none'
    reporterNames(reportTo)
    const from = modelNames.includes(bareModelName(request.model)) ? null : this.#start(request.model, plan.lora)
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
    const started = Date.now() / 1000
    const environment = runEnvironment(version, model, plan.given.seed)
    folder.create({ config: { job_id: id, created: started, ...baseFields(this.options), ...request }, environment })
    const shown = { model: request.model, ...plan.given, environment }
    const say = (line: string) => log?.(line)
    const reports = new TuningReports({ id, folder: folder.path, started, config: shown, reportTo, say })
    const common = { engine, codec, folder, contextLength: model.contextLength, ...(log ? { log } : {}) }
    const job = new FineTuningJob({
      ...common,
      id,
      model: request.model,
      fileId: request.training_file,
      read,
      plan,
      from,
      reports,
      notes: request.validation_file ? [`The validation file ${request.validation_file} is not looked at.`] : [],
    })
    this.#jobs.set(id, job)
    void this.#queue.run(() => job.run())
    return job
  }

  /** The server ends: what runs stops after its update. Resolves when the engine is no longer asked. */
  async interrupt(): Promise<void> {
    for (const job of this.#jobs.values()) if (!job.ended) job.stop('the server was ended')
    await this.#queue.idle()
    await Promise.all(this.list().map((job) => job.reported(UPLOAD_MS)))
  }

  /** Resolves when all jobs made so far have ended. */
  idle(): Promise<void> {
    return this.#queue.idle()
  }

  /** The folder of another job's weights. */
  #start(name: string, lora: LoraSpec | null): string {
    const weights = this.weights(name, lora) ?? this.options.saved.locate(bareModelName(name))?.dir
    if (weights !== undefined) return weights
    throw new HttpError(404, `This server has the base model "${this.options.modelNames[0]}", not "${bareModelName(name)}".`, {
      code: 'model_not_found',
      param: 'model',
    })
  }
}
