// One supervised fine-tuning job: conversations → batches → updates of a policy of its own, an event for each.

import { randomUUID } from 'node:crypto'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import type { Engine, TrainSequence } from '../engine/engine'
import { uniforms } from '../engine/random'
import { ArborError, OptionError } from '../errors'
import type { FineTuningEvent, FineTuningJobObject, FineTuningStep } from '../protocol'
import { type FinetunePlan, finetuneStep } from './hyperparameters'
import type { TuningReports } from './report/job-reports'
import type { RunFolder } from './run-folder'
import type { TextCodec } from './services'
import { type Conversation, trainSequence } from './training-file'

export const FINAL_CHECKPOINT = 'checkpoint_final'

export interface FineTuningSetup {
  readonly id: string
  /** The base model's name, as asked for. */
  readonly model: string
  readonly fileId: string
  /** The file's conversations, read when the job's turn comes. */
  readonly read: () => Conversation[]
  readonly plan: FinetunePlan
  readonly contextLength: number
  readonly engine: Engine
  readonly codec: TextCodec
  readonly folder: RunFolder
  /** Weights to go on from instead of the base's; a folder that the engine saved. */
  readonly from: string | null
  /** Null for a job that an earlier process trained. */
  readonly reports: TuningReports | null
  /** What the job's events say at the beginning, of what was asked for and is not done. */
  readonly notes?: readonly string[]
  readonly log?: (line: string) => void
}

type Status = 'queued' | 'validating_files' | 'running' | 'succeeded' | 'failed' | 'cancelled'

export class FineTuningJob {
  readonly id: string
  readonly contextLength: number
  readonly steps: FineTuningStep[] = []
  /** Oldest first. */
  readonly events: FineTuningEvent[] = []
  readonly #setup: FineTuningSetup
  readonly #created = Date.now() / 1000
  #status: Status = 'queued'
  #finished: number | null = null
  #error: string | null = null
  #opened = Promise.resolve()
  #stop: 'cancelled by a client' | 'the server was ended' | null = null

  constructor(setup: FineTuningSetup) {
    this.#setup = setup
    this.id = setup.id
    this.contextLength = setup.contextLength
    this.#say('info', `Created job ${this.id}: ${setup.model} on ${setup.fileId}.`)
    for (const note of setup.notes ?? []) this.#say('warn', note)
  }

  get status(): Status {
    return this.#status
  }

  get ended(): boolean {
    return this.#finished !== null
  }

  /** Whether chat requests may name this job: once it is trained. */
  get serves(): boolean {
    return this.#status === 'succeeded'
  }

  /** What serves is trained; one from before a restart has to be opened first. */
  trained(): Promise<void> {
    return this.#opened
  }

  /** The job that an earlier process trained: its weights are opened at the first question. */
  static restored(setup: FineTuningSetup): FineTuningJob {
    const job = new FineTuningJob(setup)
    const saved = setup.folder.checkpoints().at(-1)!
    job.#end('succeeded', null)
    job.#finished = saved.timestamp
    job.#opened = setup.engine.openSaved(job.id, saved.checkpoint_dir).then(() => {})
    job.#opened.catch((error: Error) => setup.log?.(`${job.id} can't be opened again: ${error.message}`))
    return job
  }

  /** Where the run is kept. */
  get folder(): RunFolder {
    return this.#setup.folder
  }

  /** The folder with the trained weights, and what was trained; null before the end. */
  get weights(): { readonly dir: string; readonly plan: FinetunePlan } | null {
    const saved = this.serves ? this.#setup.folder.checkpoints().at(-1) : undefined
    return saved ? { dir: saved.checkpoint_dir, plan: this.#setup.plan } : null
  }

  /** Resolves when a run that has ended is uploaded, where it is, or after `ms`. */
  async reported(ms: number): Promise<void> {
    await this.#setup.reports?.finished(ms)
  }

  object(): FineTuningJobObject {
    const { model, fileId, plan } = this.#setup
    return {
      id: this.id,
      object: 'fine_tuning.job',
      model,
      created_at: Math.floor(this.#created),
      finished_at: this.#finished === null ? null : Math.floor(this.#finished),
      status: this.#stop && !this.ended ? 'pending_cancel' : this.#status,
      training_file: fileId,
      validation_file: null,
      fine_tuned_model: this.serves ? this.id : null,
      estimated_finish: this.#estimate(),
      error: this.#error === null ? null : { code: `job_${this.#status}`, message: this.#error, param: null },
      hyperparameters: { ...plan.given, n_epochs: plan.epochs, batch_size: plan.batch, learning_rate: plan.learningRate },
      trained_tokens: this.serves ? this.steps.reduce((sum, { tokens }) => sum + tokens, 0) : null,
      organization_id: 'arbor-nb',
      result_files: [],
      seed: plan.given.seed,
    }
  }

  /** Reads, trains, saves. Never throws: what goes wrong is the job's error. */
  async run(): Promise<void> {
    if (this.ended) return
    try {
      this.#status = 'validating_files'
      const sequences = this.#sequences()
      const { engine, plan, from } = this.#setup
      await engine.openPolicy(this.id, {
        lora: plan.lora,
        seed: plan.given.seed,
        ...(from ? { checkpoint: from, freshOptimizer: true } : {}),
      })
      this.#status = 'running'
      await this.#train(sequences)
      if (this.#stop) return await this.#close('cancelled', this.#stop)
      await this.#save()
      this.#end('succeeded', null)
      this.#say('info', `Trained. The model answers as "${this.id}".`)
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      this.#setup.log?.(`Job ${this.id} failed: ${error instanceof Error ? error.stack : reason}`)
      await this.#close('failed', reason)
    }
  }

  /** Ends the job after the update that is under way, without a model. */
  stop(reason: 'cancelled by a client' | 'the server was ended'): void {
    this.#stop = reason
    if (this.#status === 'queued') this.#end('cancelled', reason)
  }

  #sequences(): TrainSequence[] {
    const { read, codec, plan } = this.#setup
    const all = read().map((conversation) => trainSequence(conversation, codec))
    const fit = all.filter(({ prompt, completion }) => prompt.length + completion.length <= plan.maxTokens)
    const left = all.length - fit.length
    if (fit.length === 0)
      throw new OptionError(
        `All ${all.length} conversations have more than ${plan.maxTokens} tokens. Raise max_seq_len (the model's context bounds it), or leave demos out.`,
      )
    if (left > 0) this.#say('warn', `${left} of ${all.length} conversations have more than ${plan.maxTokens} tokens: left out.`)
    if (plan.lora && plan.lora.dropout > 0) this.#say('warn', `lora_dropout ${plan.lora.dropout} is not applied.`)
    return fit
  }

  async #train(sequences: readonly TrainSequence[]): Promise<void> {
    const { plan } = this.#setup
    const perEpoch = Math.ceil(sequences.length / plan.batch)
    const steps = perEpoch * plan.epochs
    this.#say('info', `Training on ${sequences.length} conversations: ${plan.epochs} epochs of ${perEpoch} updates.`)
    for (let step = 0; step < steps && !this.#stop; step++) {
      const order = shuffled(sequences.length, plan.given.seed, Math.floor(step / perEpoch))
      const first = (step % perEpoch) * plan.batch
      await this.#update(
        order.slice(first, first + plan.batch).map((i) => sequences[i]!),
        { step, steps, perEpoch },
      )
      await turn() // requests that came meanwhile are heard between two updates
    }
  }

  /** Cross-entropy over the batch's completion tokens, each counting the same. */
  async #update(batch: readonly TrainSequence[], at: { step: number; steps: number; perEpoch: number }): Promise<void> {
    const { engine, plan, folder } = this.#setup
    const tokens = batch.reduce((sum, { completion }) => sum + completion.length, 0)
    const config = finetuneStep(plan, at.step, at.steps)
    const dLogprobs = new Float32Array(tokens).fill(-1 / tokens)
    const { objective, gradNorm, seconds } = await engine.trainStep(this.id, batch, { dLogprobs }, config)
    const loss = objective!
    if (!Number.isFinite(loss) || !Number.isFinite(gradNorm))
      throw new ArborError(
        `The loss of update ${at.step + 1} is ${loss}, its gradient's norm ${gradNorm}. Lower the learning rate.`,
      )
    const done: FineTuningStep = {
      step: at.step + 1,
      steps: at.steps,
      epoch: (at.step + 1) / at.perEpoch,
      loss,
      learning_rate: config.learningRate,
      grad_norm: gradNorm,
      tokens,
      seconds,
    }
    this.steps.push(done)
    const warnings = this.#setup.reports?.step(done) ?? []
    folder.appendLoss(done)
    for (const warning of warnings) this.#say('warn', warning)
    this.#say('info', `Update ${done.step}/${done.steps}: loss ${loss.toFixed(4)}`, done)
  }

  async #save(): Promise<void> {
    const { engine, folder } = this.#setup
    const record = {
      checkpoint_name: FINAL_CHECKPOINT,
      global_step: this.steps.length,
      requested: true,
      metadata: { loss: this.steps.at(-1)?.loss ?? null },
      timestamp: Date.now() / 1000,
    }
    await folder.saveCheckpoint(record, async (dir) => {
      await engine.savePolicy(this.id, dir)
      // Whoever goes on from these weights begins with an optimizer of its own.
      rmSync(join(dir, 'optimizer.safetensors'), { force: true })
    })
  }

  /** Ends without a model; a policy that was opened is given back. */
  async #close(status: 'failed' | 'cancelled', reason: string): Promise<void> {
    const opened = this.#status === 'running'
    this.#end(status, reason)
    if (opened) await this.#setup.engine.closePolicy(this.id).catch((error: Error) => this.#setup.log?.(error.message))
  }

  #end(status: 'succeeded' | 'failed' | 'cancelled', reason: string | null): void {
    this.#status = status
    this.#error = reason
    this.#finished = Date.now() / 1000
    this.#setup.reports?.end(status, reason)
    if (reason !== null) this.#say('error', `The job ${status === 'failed' ? 'failed' : 'was ended'}: ${reason}`)
  }

  #estimate(): number | null {
    const last = this.steps.at(-1)
    if (!last || this.ended) return null
    const seconds = this.steps.reduce((sum, step) => sum + step.seconds, 0) / this.steps.length
    return Math.ceil(Date.now() / 1000 + seconds * (last.steps - last.step))
  }

  #say(level: FineTuningEvent['level'], message: string, step?: FineTuningStep): void {
    const head = {
      object: 'fine_tuning.job.event',
      id: `ftevent-${randomUUID()}`,
      created_at: Math.floor(Date.now() / 1000),
      level,
      message,
    } as const
    this.events.push(
      step ? { ...head, type: 'metrics', data: { ...step, source: 'training_log' } } : { ...head, type: 'message', data: {} },
    )
  }
}

/** The order of epoch `epoch`: follows from the seed alone. */
function shuffled(count: number, seed: number, epoch: number): number[] {
  const random = uniforms(seed, epoch)
  const order = Array.from({ length: count }, (_, i) => i)
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1))
    ;[order[i], order[j]] = [order[j]!, order[i]!]
  }
  return order
}
