// ArborGRPO: trains the weights behind a program. The reading path of the client side:
// examples → rollouts → rewards → groups → one update on the server → validation → checkpoint, and again.

import { LMError, OptionError, ProtocolError } from '../errors'
import { context, Evaluate, type Example, type LM, type Module, reportProgress, rewardOf, scoreOf } from '../program'
import { bareModelName, type StepRecord } from '../protocol'
import type { GrpoJob } from './arbor-job'
import { CheckpointFolder } from './checkpoint-folder'
import { DspyGrpo } from './dspy-grpo'
import { dspyGrpoSettings } from './dspy-grpo-options'
import { formGroups } from './groups'
import { type ArborGRPOOptions, checkGrpoOptions, type GrpoSettings } from './grpo-options'
import { notebookSignal } from './notebook-signal'
import { openJob } from './open-job'
import { rolloutStep } from './rollouts'
import { stepExamples } from './sampler'
import { checkStudent, type TrainableLM } from './student'
import { agreeOnSampling } from './train-kwargs'

/** Of a validation: unlike a step's rollouts each question is a request of its own. */
const QUESTIONS_AT_ONCE = 128

export interface CompileOptions {
  readonly trainset: readonly Example[]
  /** Validated before the first step, every numStepsForVal steps and after the last. */
  readonly valset?: readonly Example[]
  /** Continue a run from its last checkpoint: a job id, or true for the run in the `checkpoint` folder. */
  readonly resume?: string | true
  /** Aborting ends the run at the next call with its records and a checkpoint on disk. */
  readonly signal?: AbortSignal
  /** With `compat` only: who rolls out, the student among them. */
  readonly teacher?: Module | readonly Module[]
}

/** What a compile did; filled while it runs. */
export interface TrainingRun {
  readonly jobId: string
  /** The model name under which the server answers with the trained weights. */
  readonly model: string
  readonly records: StepRecord[]
  /** Percent, after `step` updates; step 0 is before training. A resumed run has those of its first part, too. */
  readonly validation: { readonly step: number; readonly score: number }[]
  /** Where the best and the last policy lie, once saved. */
  readonly checkpoints: Record<string, string>
  readonly notes: string[]
}

export class ArborGRPO {
  readonly compileParameters = ['trainset', 'valset', 'resume', 'signal'] as const
  readonly settings: GrpoSettings
  /** The run of the last compile. */
  run: TrainingRun | null = null
  /** With `compat`: Python's way, step for step. */
  readonly compat: DspyGrpo | null

  /** @throws OptionError for an unknown option or a value that cannot be meant. */
  constructor(options: ArborGRPOOptions) {
    this.compat = options.compat ? new DspyGrpo(dspyGrpoSettings(options, options.compat)) : null
    this.settings = checkGrpoOptions(options)
  }

  /**
   * Trains, and returns a copy of the program whose LM is the trained policy; the student stays as it was.
   * An interrupted run (error, signal, dead notebook) leaves its records and a checkpoint; `resume` goes on from there with the same
   * examples, seeds and weights as if it had not been interrupted.
   */
  async compile<P extends Module>(student: P, options: CompileOptions): Promise<P> {
    if (this.compat) return this.compat.compile(student, { ...options, signal: options.signal ?? notebookSignal() })
    if (options.teacher)
      throw new OptionError("ArborGRPO's student rolls out itself; a teacher is taken with compat: 'dspy' only.")
    const { lm, predictors } = checkStudent(student)
    options = { ...options, signal: options.signal ?? notebookSignal() }
    if (options.trainset.length === 0)
      throw new OptionError('The trainset is empty: GRPO needs at least one example to roll out.')
    if (this.settings.restoreBest && !options.valset?.length && !this.settings.reportTrainScores)
      throw new OptionError('restoreBest needs validation scores: give compile a valset.')
    const folder = new CheckpointFolder(this.settings.checkpoint)
    const program = student.deepcopy()
    const job = await this.open(lm, predictors.length, folder, options)
    const sampling = agreeOnSampling(lm, this.settings.trainKwargs).lm
    // Our server takes an example's rollouts as one request.
    const trained = lm.copy({ model: `openai/arbor:${job.model}`, ...sampling, groupSeeds: this.settings.target !== 'arbor' })
    program.setLm(trained)
    await folder.start(job.id)
    try {
      await this.train({ job, folder, program, lm: trained, predictors, options })
    } catch (caught) {
      const error = lostServer(caught, job)
      await this.leaveCheckpoint(job, error)
      this.report('end', { status: 'failed', reason: error instanceof Error ? error.message : String(error) })
      throw error
    }
    this.report('end', { status: 'succeeded', reason: null })
    return program
  }

  private async open(lm: TrainableLM, predictors: number, folder: CheckpointFolder, options: CompileOptions): Promise<GrpoJob> {
    const { resume, signal } = options
    const { job, notes } = await openJob({ lm, settings: this.settings, predictors, folder, resume, signal })
    const checkpoints = Object.fromEntries(
      Object.values(job.first.checkpoints).map((one) => [one.checkpoint_name, one.checkpoint_dir]),
    )
    this.run = { jobId: job.id, model: job.model, records: [], validation: [], checkpoints, notes: [...notes] }
    this.report('start', { model: bareModelName(lm.model), notes })
    return job
  }

  /** The loop. Everything random in step k follows from (seed, k), so it may start at any k. */
  private async train(loop: TrainLoop): Promise<void> {
    const { job, options } = loop
    const s = this.settings
    const records = job.records(0, options.signal)
    for (let step = await this.catchUp(loop, records); step < s.numTrainSteps; step++) {
      options.signal?.throwIfAborted()
      await this.rolloutAndSend(loop, step)
      this.take(await nextRecord(records, job.id))
      if (isKept(step + 1, s)) await this.keep(loop, step + 1)
    }
    if (s.restoreBest) await this.restoreBest(loop)
    await job.terminate()
    this.run!.notes.push(...(await loop.folder.copy(this.run!.checkpoints)))
  }

  /** Takes over what a resumed run has done, and judges the policy as it stands. Answers the step to go on with. */
  private async catchUp(loop: TrainLoop, records: AsyncGenerator<StepRecord>): Promise<number> {
    const { step: done, score } = resumedFrom(loop.job)
    for (let k = 0; k < done; k++) {
      const record = await nextRecord(records, loop.job.id)
      if (record.validation_score !== null) this.validated(k, record.validation_score)
      this.take(record)
    }
    if (score !== null) this.validated(done, score)
    else if (done === 0) await this.validate(loop, 0)
    else if (isKept(done, this.settings)) await this.keep(loop, done) // the interruption came before the policy was judged
    return done
  }

  /** Examples → rollouts → groups → the server, which answers at once and trains behind. */
  private async rolloutAndSend(loop: TrainLoop, step: number): Promise<void> {
    const { options } = loop
    const s = this.settings
    const examples = stepExamples({ size: options.trainset.length, batch: s.numDspyExamplesPerGrpoStep, step, seed: s.seed })
    const of = examples.length * s.numRolloutsPerGrpoStep
    const onRollout = (done: number) => this.report('item', { rollouts: { step: step + 1, done, of } })
    const rollouts = await rolloutStep({ ...loop, ...options, settings: s, step, examples, onRollout })
    const { batch, groups, dropped } = formGroups(rollouts, loop.predictors, s.variablyInvokedPredictorGroupingMode)
    this.run!.notes.push(...dropped)
    if (batch.length === 0)
      throw new OptionError(`Step ${step + 1} has no group to train on: ${dropped[0] ?? 'the program called no predictor'}.`)
    const metrics = { format_failures: rollouts.filter((rollout) => rollout.formatFailure).length, ...this.newestScore(step) }
    await loop.job.step({ batch, groups, metrics })
  }

  private take(record: StepRecord): void {
    this.run!.records.push(record)
    this.report('item', { record })
  }

  /** Whoever draws (display/live.ts) hears of the run here; nobody needs to. */
  private report(phase: 'start' | 'item' | 'end', payload: GrpoProgress): void {
    const { jobId, records } = this.run!
    reportProgress({
      kind: `grpo:${phase}`,
      id: jobId,
      title: 'GRPO',
      done: records.length,
      total: this.settings.numTrainSteps,
      payload,
    })
  }

  private newestScore(step: number): { validation_score?: number } {
    const score = this.run!.validation.find((entry) => entry.step === step)?.score
    return score === undefined ? {} : { validation_score: score }
  }

  /** Validates after `step` updates; saves the last policy, and the best when it got better. */
  private async keep(loop: TrainLoop, step: number): Promise<void> {
    const run = this.run!
    const before = bestOf(run)
    const score = await this.validate(loop, step)
    const mode = this.settings.checkpoint
    const better = score !== null && (before === null || score > before)
    const save = async (name: string) => {
      const status = await loop.job.checkpoint(name, { score, best: bestOf(run), step_index: step - 1 })
      run.checkpoints[name] = status.checkpoints[name]!.checkpoint_dir
    }
    if (mode !== 'none') await save('model_checkpoint_last')
    if (better && mode === 'improvements') await save(`model_checkpoint_step_${step}`)
    else if (better && mode !== 'none') await save('model_checkpoint_best')
  }

  private async restoreBest({ job }: TrainLoop): Promise<void> {
    const run = this.run!
    const { checkpoints, last_checkpoint: name } = await job.restore!('best')
    const { metadata } = checkpoints[name!]!
    run.notes.push(`Restored ${String(metadata?.['restored_from'])}, which validated best (${String(metadata?.['score'])} %).`)
  }

  private async validate({ program, options }: TrainLoop, step: number): Promise<number | null> {
    const s = this.settings
    const set = [...(options.valset ?? []), ...(s.reportTrainScores ? options.trainset : [])]
    if (set.length === 0) return null
    const evaluate = new Evaluate({
      devset: set,
      metric: async (...run) => rewardOf(await s.metric(...run), s.rewardWeights, scoreOf).reward,
      numThreads: Math.min(s.numThreads, QUESTIONS_AT_ONCE),
      failureScore: s.failureScore,
      displayProgress: true,
      title: `Validation after ${step} steps`,
      maxErrors: set.length + 1,
      signal: options.signal,
    })
    // One seed for every validation: the curve shows the policy, not the luck of the draw.
    const { score } = await context({ lmOptions: { seed: s.seed }, adapterFallback: false }, () => evaluate.call(program))
    this.validated(step, score)
    return score
  }

  private validated(step: number, score: number): void {
    this.run!.validation.push({ step, score })
    this.report('item', { validation: { step, score } })
  }

  /** The run can go on from here; failing to save is told beside the first error, never instead of it. */
  private async leaveCheckpoint(job: GrpoJob, error: unknown): Promise<void> {
    const run = this.run!
    try {
      const { checkpoints } = await job.checkpoint('interrupted', { best: bestOf(run) })
      const { checkpoint_dir, global_step } = checkpoints['interrupted']!
      run.checkpoints['interrupted'] = checkpoint_dir
      run.notes.push(`Interrupted after step ${global_step}; resume with { resume: '${job.id}' }.`)
    } catch (second) {
      if (error instanceof Error && second instanceof Error)
        run.notes.push(`No checkpoint at the interruption: ${second.message}`)
    }
  }
}

/** The payloads of grpo:start, grpo:item and grpo:end. */
export type GrpoProgress =
  | { readonly model: string; readonly notes: readonly string[] }
  | { readonly record: StepRecord }
  | { readonly rollouts: { readonly step: number; readonly done: number; readonly of: number } }
  | { readonly validation: { readonly step: number; readonly score: number } }
  | { readonly status: 'succeeded' | 'failed'; readonly reason: string | null }

interface TrainLoop {
  readonly job: GrpoJob
  readonly folder: CheckpointFolder
  readonly program: Module
  readonly lm: LM
  readonly predictors: readonly string[]
  readonly options: CompileOptions
}

async function nextRecord(records: AsyncGenerator<StepRecord>, job: string): Promise<StepRecord> {
  const { value, done } = await records.next()
  if (done)
    throw new ProtocolError(`Job ${job} ended before all its steps were trained; its run folder on the server tells why.`, {
      status: 409,
    })
  return value
}

/** A rollout that reached no server says so in the words of a model call; here it means that the run is cut off. */
function lostServer(error: unknown, job: GrpoJob): unknown {
  if (!(error instanceof LMError) || error.status !== 0) return error
  return new ProtocolError(
    `The server went away while ${job.id} was running. Its run folder is on disk; start the server again (arbor.startServer) and compile with { resume: '${job.id}' }. (${error.message})`,
    { status: 0, cause: error },
  )
}

/** Whether the policy after `step` updates is validated and saved. */
function isKept(step: number, s: GrpoSettings): boolean {
  return step === s.numTrainSteps || step % s.numStepsForVal === 0
}

/** From a resumed job's checkpoints: how many steps are done, and the validation score after them where that was reached. */
function resumedFrom(job: GrpoJob): { step: number; score: number | null } {
  const { checkpoints, last_checkpoint } = job.first
  const step = last_checkpoint === null ? 0 : (checkpoints[last_checkpoint]?.global_step ?? 0)
  const kept = Object.values(checkpoints).find((one) => one.global_step === step && one.checkpoint_name.startsWith('model_'))
  const score = kept?.metadata?.['score']
  return { step, score: typeof score === 'number' ? score : null }
}

function bestOf(run: TrainingRun): number | null {
  return run.validation.length === 0 ? null : Math.max(...run.validation.map((entry) => entry.score))
}
