// One training job: takes steps, trains them in order behind the answers, keeps checkpoints, tells whoever listens.

import type { z } from 'zod'
import type { Engine, GpuSplit } from '../engine/engine'
import type {
  CheckpointRecord,
  GRPOStatus,
  GroupInfo,
  StepRecord,
  StepRequestSchema,
  StepSample,
  TrainerConfig,
} from '../protocol'
import { checkpointList, findCheckpoint } from './checkpoint-name'
import type { CompletionStore } from './completion-store'
import { HttpError } from './http-errors'
import { JobCheckpoints } from './job-checkpoints'
import { JobQueue } from './job-queue'
import { type BatchIds, digestOf, OfferedIds } from './offered-ids'
import { updatePolicy } from './policy-update'
import type { GrpoReports } from './report/job-reports'
import type { RunFolder } from './run-folder'
import type { TextCodec } from './services'
import { entropyStateAfter, rolloutLines, stepRecord } from './step-record'
import { loraSpec } from './trainer-config'
import { type TrainingRow, trainingRows } from './training-rows'

export interface JobSetup {
  readonly id: string
  readonly config: TrainerConfig
  readonly folder: RunFolder
  /** Tokens a prompt and its completion may have together. */
  readonly contextLength: number
  readonly engine: Engine
  readonly codec: TextCodec
  readonly completions: CompletionStore
  readonly batchIds: BatchIds
  readonly reports: GrpoReports
  readonly policyVersion: number
  /** What the client wishes for, and what the first step's notes say of it. */
  readonly gpus: { readonly wish: GpuSplit; readonly note: string | null }
  /** Whether the policy started as the base; else as a fine-tuned model. */
  readonly onBase: boolean
  /** How often a job saves itself; default every two minutes. */
  readonly autosaveMs?: number
  /** Hears why the job failed, with the stack. */
  readonly log?: (line: string) => void
  /** Where a resumed job goes on. */
  readonly resumed?: { readonly records: readonly StepRecord[]; readonly checkpoints: readonly CheckpointRecord[] }
}

type ParsedStep = z.output<typeof StepRequestSchema>
type JobStatus = 'running' | 'succeeded' | 'failed' | 'cancelled'

/** One update that waits for its turn. */
interface QueuedUpdate {
  readonly groups: readonly (readonly TrainingRow[])[]
  readonly samples: readonly (readonly StepSample[])[]
  readonly infos: readonly GroupInfo[] | null
  readonly metrics: Readonly<Record<string, number | null>>
  readonly batchId: number
  readonly arrived: number // unix seconds
}

export class GrpoJob {
  readonly id: string
  readonly contextLength: number
  status: JobStatus = 'running'
  /** Why it failed or was cancelled. */
  reason: string | null = null
  readonly records: StepRecord[] = []
  /** Unix seconds. */
  readonly created = Date.now() / 1000
  /** Unix seconds; null while it runs. */
  ended: number | null = null
  private policyVersion: number
  private interrupted = false
  private lastTime = Date.now() / 1000
  private readonly checkpoints: JobCheckpoints
  private readonly ids: OfferedIds
  private readonly queue = new JobQueue()
  private readonly listeners = new Set<() => void>()

  constructor(readonly setup: JobSetup) {
    this.id = setup.id
    this.contextLength = setup.contextLength
    this.policyVersion = setup.policyVersion
    this.records.push(...(setup.resumed?.records ?? []))
    this.checkpoints = new JobCheckpoints({
      ...setup,
      write: (dir) => setup.engine.savePolicy(this.id, dir),
      earlier: setup.resumed?.checkpoints ?? [],
    })
    const { groups_per_step, num_generations } = setup.config
    this.ids = new OfferedIds(setup.batchIds, groups_per_step === null ? num_generations : null)
  }

  /** Whether chat requests may name this job: all its life, unless it was cancelled. */
  get serves(): boolean {
    return this.status !== 'cancelled'
  }

  get hyperparameters(): TrainerConfig {
    return this.setup.config
  }

  get step(): number {
    return this.records.at(-1)?.step ?? 0
  }

  /** Arbor's six fields. */
  fields(): GRPOStatus {
    return {
      job_id: this.id,
      status: this.status,
      current_model: this.id,
      ...this.checkpoints.fields(),
      pending_batch_ids: this.status === 'running' ? this.ids.list() : [],
    }
  }

  /**
   * The answer to every call. A client that polls would wait for ever on a dead job, so that one answers with an error.
   * @throws HttpError 409 with the reason and the six fields when the job failed or was cancelled
   */
  answer(): GRPOStatus {
    if (this.status === 'running' || this.status === 'succeeded') return this.fields()
    throw new HttpError(409, `Job ${this.id} ${this.status === 'failed' ? 'failed' : 'was cancelled'}: ${this.reason}`, {
      code: `job_${this.status}`,
      extra: { ...this.fields() },
    })
  }

  /** The answer to a client that asks which batches the job waits for. @throws HttpError as `answer` */
  asked(): GRPOStatus {
    this.ids.count()
    return this.answer()
  }

  /** A completion of this job's policy was sampled. @param json whether the request wanted JSON */
  sampled(prompt: readonly number[], json: boolean): void {
    const counts = this.setup.config.groups_per_step === null // where an id stands for a whole step nobody asks how much was sampled
    if (this.status === 'running' && counts) this.ids.sampled(prompt.join(), json)
  }

  /** Takes the groups of one step (or several, one update each, without groups_per_step) and returns at once. */
  post(request: ParsedStep): GRPOStatus {
    this.answer()
    if (this.status !== 'running')
      throw new HttpError(400, `Job ${this.id} has ended (${this.status}). Initialize with resume_from "${this.id}" to go on.`)
    const updates = this.updatesOf(request)
    if (!this.ids.serve(request.batch_id, digestOf(request.batch))) return this.answer() // what was posted before is answered, not trained again
    for (const update of updates) void this.queue.run(() => this.train(update))
    return this.answer()
  }

  /** Saved after all steps posted before. */
  checkpoint(name: string, metadata: Record<string, unknown> | null): Promise<GRPOStatus> {
    return this.queue.run(async () => {
      this.answer()
      await this.checkpoints.save(name, metadata, this.step)
      this.setup.reports.checkpointed(this.step, metadata)
      return this.answer()
    })
  }

  /** The policy becomes that of a checkpoint, with its optimizer; steps are counted on. What was saved since stays on disk. */
  restore(name: string): Promise<GRPOStatus> {
    return this.queue.run(async () => {
      this.answer()
      const checkpoints = this.setup.folder.checkpoints()
      const found = findCheckpoint(checkpoints, name)
      if (!found)
        throw new HttpError(404, `Job ${this.id} has no checkpoint "${name}". ${checkpointList(checkpoints)}`, {
          code: 'checkpoint_not_found',
          param: 'checkpoint_name',
        })
      await this.reopen(found.checkpoint_dir)
      await this.checkpoints.save('restored', { ...found.metadata, restored_from: found.checkpoint_name }, this.step)
      return this.answer()
    })
  }

  /** Waits for the posted steps, saves checkpoint_final and ends the job; its weights go on answering. */
  terminate(): Promise<GRPOStatus> {
    return this.queue.run(async () => {
      if (this.status === 'running') {
        await this.checkpoints.save('checkpoint_final', null, this.step)
        this.checkpoints.done()
        this.end('succeeded', null)
      }
      return this.answer()
    })
  }

  /** Drops the steps that wait and forgets the policy. */
  async cancel(): Promise<GRPOStatus> {
    this.end('cancelled', 'cancelled by a client')
    await this.queue.run(() => this.setup.engine.closePolicy(this.id))
    return this.fields()
  }

  /** The server ends: steps that wait are dropped, and what was trained since the last checkpoint is saved. */
  async interrupt(): Promise<void> {
    this.interrupted = true
    await this.queue.run(async () => {
      const { last } = this.checkpoints
      // What a client noted with its last checkpoint (its best score so far) still holds.
      if (this.status === 'running' && this.step > (last?.global_step ?? 0))
        await this.checkpoints.save('interrupted', last?.metadata ?? null, this.step)
      this.setup.reports.end('interrupted', null) // changes nothing where the job has ended
    })
  }

  /** Another client resumes this run: it is saved as at the server's end, and whoever still waits for it is told. */
  async handOver(): Promise<void> {
    if (!this.serves) return
    await this.interrupt()
    if (this.status === 'running') this.end('cancelled', 'resumed by another client')
    await this.queue.run(() => this.setup.engine.closePolicy(this.id))
  }

  /** Resolves when a run that has ended is uploaded, where it is, or after `ms`. */
  reported(ms: number): Promise<void> {
    return this.setup.reports.finished(ms)
  }

  /** Resolves when the steps posted so far are trained. */
  trained(): Promise<void> {
    return this.queue.idle()
  }

  /** Resolves at the next record, at the end of the job, or when `signal` aborts. */
  changed(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        this.listeners.delete(done)
        signal.removeEventListener('abort', done)
        resolve()
      }
      this.listeners.add(done)
      signal.addEventListener('abort', done, { once: true })
    })
  }

  private updatesOf(request: ParsedStep): QueuedUpdate[] {
    const listed = Array.isArray(request.batch[0])
    const samples = (listed ? request.batch : [request.batch]) as StepSample[][]
    const expected = this.setup.config.num_generations
    if (!listed && samples[0]!.length !== expected)
      throw new HttpError(400, `A batch has ${samples[0]!.length} samples; num_generations is ${expected}.`, { param: 'batch' })
    if (request.groups && request.groups.length !== samples.length)
      throw new HttpError(400, `${samples.length} groups but ${request.groups.length} group descriptions.`, { param: 'groups' })
    const context = { ...this.setup, policy: this.id, temperature: this.setup.config.temperature }
    const groups = samples.map((group) => trainingRows(group, context))
    const common = { metrics: request.metrics ?? {}, batchId: request.batch_id, arrived: Date.now() / 1000 }
    const infos = request.groups ?? null
    if (this.setup.config.groups_per_step !== null) return [{ ...common, groups, samples, infos }]
    return groups.map((group, i) => ({ ...common, groups: [group], samples: [samples[i]!], infos: infos && [infos[i]!] }))
  }

  private async train(update: QueuedUpdate): Promise<void> {
    if (this.status !== 'running' || this.interrupted) return
    const step = this.step + 1
    try {
      const { engine, config, contextLength, folder, reports, gpus } = this.setup
      const result = await updatePolicy(update.groups, {
        engine,
        config,
        contextLength,
        policy: this.id,
        policyVersion: this.policyVersion,
        step,
        entropy: entropyStateAfter(this.records, config),
      })
      this.policyVersion = result.policyVersion
      const record = stepRecord({ ...update, jobId: this.id, step, lastTime: this.lastTime, result })
      const lines = rolloutLines(record, update.samples, update.batchId)
      record.notes.push(...reports.step(record, lines))
      if (gpus.note !== null && step === 1) record.notes.push(gpus.note)
      folder.appendStep(record, lines)
      this.lastTime = record.time
      this.records.push(record)
      this.notify()
      await this.checkpoints.autosave(step)
    } catch (error) {
      this.setup.log?.(`Job ${this.id} failed at step ${step}: ${error instanceof Error ? error.stack : String(error)}`)
      this.end('failed', `step ${step}: ${error instanceof Error ? error.message : String(error)}`)
    }
  }

  private async reopen(checkpoint: string): Promise<void> {
    const { engine, config, completions, gpus } = this.setup
    const trial = `${this.id} restored`
    await engine.openSaved(trial, checkpoint) // a checkpoint that can't be read is told while the policy is still there
    await engine.closePolicy(trial)
    try {
      await engine.closePolicy(this.id)
      const spec = { lora: loraSpec(config.lora_config), seed: config.seed, checkpoint, gpus: gpus.wish }
      this.policyVersion = (await engine.openPolicy(this.id, spec)).policyVersion
      completions.wentBack(this.id, this.policyVersion)
    } catch (error) {
      this.end('failed', `restoring ${checkpoint}: ${error instanceof Error ? error.message : String(error)}`)
      throw error
    }
  }

  private end(status: JobStatus, reason: string | null): void {
    this.status = status
    this.reason = reason
    this.ended = Date.now() / 1000
    if (status !== 'running') this.setup.reports.end(status, reason)
    this.notify()
  }

  private notify(): void {
    for (const listener of [...this.listeners]) listener()
  }
}
