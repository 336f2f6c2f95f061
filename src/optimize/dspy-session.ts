// One compile of GRPO as Python does it: when it asks, rolls out, validates, sends and saves. After dspy/teleprompt/grpo.py and arbor-ai's copy of it.

import { OptionError } from '../errors'
import {
  type BaseLM,
  context,
  currentSettings,
  Evaluate,
  type Example,
  type LMOptions,
  type Module,
  newActivityId,
  type PythonRandom,
  reportProgress,
} from '../program'
import type { StepSample } from '../protocol'
import type { DspyEpochs } from './dspy-epochs'
import type { DspyGrpoSettings } from './dspy-grpo-options'
import { dspyGroups, type TracedRollout, traceRollouts, trainingAdapter } from './dspy-traces'
import { PythonSet } from './python-set'
import type { ReinforceGroup, ReinforceJob } from './reinforce-job'

/** What the last compile did; filled while it runs. */
export interface DspyGrpoRun {
  /** By step from 0; −1 is before training. Percent, but plain means with `reportTrainScores` and a valset. */
  readonly validationScores: Map<number, number>
  readonly bestValidationScore: number | null
  readonly bestValidationStep: number | null
  readonly notes: readonly string[]
}

/** Whoever trains models by rewards; `LM.provider` holds one. */
export interface ReinforceProvider {
  reinforce(lm: BaseLM, trainKwargs: Readonly<Record<string, unknown>>): Promise<ReinforceJob>
}

/** The payloads of grpo:start, grpo:item and grpo:end. */
export type DspyGrpoProgress =
  | { readonly model: string; readonly notes: readonly string[] }
  | { readonly epoch: { readonly epoch: number; readonly ids: readonly number[] } }
  | { readonly selected: { readonly step: number; readonly examples: readonly number[] } }
  | { readonly rollouts: { readonly step: number; readonly done: number; readonly of: number } }
  | { readonly validation: { readonly step: number; readonly score: number; readonly trainScore: number | null } }
  | { readonly status: 'succeeded' | 'failed'; readonly reason: string | null }

/** The sampling values that the model and the trainer must agree on, as DSPy checks them. */
const SAMPLING = { temperature: 'temperature', top_k: 'topK', top_p: 'topP', repetition_penalty: 'repetitionPenalty' } as const

/** What outlives a compile: the settings, the random numbers, and how far the epochs are. */
interface Owner {
  readonly settings: DspyGrpoSettings
  readonly random: PythonRandom
  readonly epochs: DspyEpochs
}

interface SessionInput {
  readonly student: Module
  readonly teachers: readonly Module[]
  readonly trainset: readonly Example[]
  readonly valset: readonly Example[] | undefined
}

type Cached = BaseLM & { readonly cache?: boolean; readonly provider?: unknown }

/** One compile. */
export class DspySession {
  readonly run = {
    validationScores: new Map<number, number>(),
    bestValidationScore: null as number | null,
    bestValidationStep: null as number | null,
    notes: [] as string[],
  }
  /** Groups that wait for a batch id; of earlier steps first. */
  readonly #queue: (readonly StepSample[])[] = []
  readonly #id = newActivityId('grpo')
  readonly #cache: boolean
  #adapterFallback = true
  #step = 0

  constructor(
    readonly owner: Owner,
    readonly input: SessionInput,
  ) {
    this.#cache = (this.lm as Cached).cache ?? true
  }

  /** The one model behind the student. @throws OptionError when there is none, or more than one */
  get lm(): BaseLM {
    const lms = new Set(this.input.student.predictors().map((predictor) => predictor.lm ?? currentSettings().lm))
    const [lm] = lms
    if (lms.size > 1) throw new OptionError(`The student has ${lms.size} LMs; GRPO trains one. Call program.setLm(lm) first.`)
    if (!lm) throw new OptionError('The student has no LM, or no predictor. Call program.setLm(lm) first.')
    return lm
  }

  /** Changes the model of the student and of every teacher that has the same. */
  #setLm(changes: { readonly model?: string } & LMOptions): void {
    const before = this.lm
    const after = before.copy(changes)
    for (const program of new Set([this.input.student, ...this.input.teachers]))
      for (const predictor of program.predictors()) if ((predictor.lm ?? before) === before) predictor.lm = after
  }

  /** null: as it was. As in DSPy, an error on the way leaves it off. */
  setCache(cache: boolean | null): void {
    this.#setLm({ cache: cache ?? this.#cache })
  }

  async open(): Promise<ReinforceJob> {
    const { settings } = this.owner
    const trainKwargs = { ...settings.trainKwargs, num_generations: settings.rollouts }
    if (settings.compat === 'dspy') this.#agreeOnSampling(trainKwargs)
    const { provider } = this.lm as { provider?: Partial<ReinforceProvider> }
    if (typeof provider?.reinforce !== 'function')
      throw new OptionError(
        `The LM ${this.lm.model} can't be trained: it needs { provider: new arbor.ArborProvider(), apiBase }.`,
      )
    const job = await provider.reinforce(this.lm, trainKwargs)
    this.#follow(job)
    return job
  }

  #agreeOnSampling(trainKwargs: Readonly<Record<string, unknown>>): void {
    const filled: Record<string, unknown> = {}
    for (const [name, key] of Object.entries(SAMPLING)) {
      const [wanted, own] = [trainKwargs[name], this.lm.options[key]]
      if (wanted === undefined) throw new OptionError(`trainKwargs lacks ${name}; the model and the trainer must agree on it.`)
      if (own === undefined) filled[key] = wanted
      else if (own !== wanted)
        throw new OptionError(
          `The LM samples with ${key} ${own}, trainKwargs says ${name}: ${String(wanted)}. Change one of them.`,
        )
    }
    this.#setLm(filled as LMOptions)
  }

  /** The programs ask the newest weights. */
  #follow({ model }: ReinforceJob): void {
    if (this.lm.model !== model) this.#setLm({ model })
  }

  async train(job: ReinforceJob, fulfilled: number[]): Promise<void> {
    const { settings } = this.owner
    await this.#validate(job, -1)
    for (this.#step = 0; this.#step < settings.numTrainSteps; this.#step++) {
      currentSettings().signal?.throwIfAborted()
      const sent = await this.#trainStep(job, fulfilled)
      if (settings.compat === 'dspy.GRPO' && sent !== 'nothing to train') await this.#validate(job, this.#step)
    }
    await job.terminate()
    this.#follow(job)
  }

  async #trainStep(job: ReinforceJob, fulfilled: number[]): Promise<'sent' | 'nothing to train' | 'nobody waits'> {
    const { settings, random } = this.owner
    const examples = this.#select()
    while (availableIds((await job.getStatus()).pending_batch_ids, fulfilled).length === 0) await job.pause()
    const { groups, formatFailures, notes } = await this.#rollOut(examples, random)
    this.run.notes.push(...notes.map((note) => `Step ${this.#step + 1}: ${note}`))
    if (groups.length === 0) return 'nothing to train'
    const ids = availableIds((await job.getStatus()).pending_batch_ids, fulfilled)
    if (ids.length === 0) return 'nobody waits'
    while (this.#queue.length < ids.length) this.#queue.push(...random.sample(groups, groups.length))
    if (settings.compat === 'dspy') await this.#validate(job, this.#step)
    const metrics = settings.compat === 'dspy' ? { metrics: this.#metrics(formatFailures) } : {}
    const data: ReinforceGroup[] = ids.map((batch_id) => ({ batch_id, group: this.#queue.shift()!, ...metrics }))
    fulfilled.push(...ids)
    await job.step(data)
    this.#follow(job)
    return 'sent'
  }

  #select(): number[] {
    const { epochs } = this.owner
    const before = epochs.epoch
    const examples = epochs.select(this.input.trainset.length, this.#step)
    if (epochs.epoch !== before) this.report('item', { epoch: { epoch: epochs.epoch, ids: epochs.ids } })
    this.report('item', { selected: { step: this.#step, examples } })
    return examples
  }

  /** Every teacher solves the step's examples over and over, in turn. */
  async #rollOut(indices: readonly number[], random: PythonRandom) {
    const { settings } = this.owner
    const { student, teachers, trainset } = this.input
    const rounds = settings.rollouts / teachers.length
    const examples = Array.from({ length: rounds }, () => indices.map((i) => trainset[i]!)).flat()
    const rollouts: TracedRollout[][] = indices.map(() => [])
    let done = 0
    const of = examples.length * teachers.length
    const onRollout = () => this.report('item', { rollouts: { step: this.#step + 1, done: ++done, of } })
    for (const teacher of teachers) {
      const traced = await this.#asConfigured(() => traceRollouts(teacher, examples, settings, onRollout))
      for (const [i, rollout] of traced.entries()) if (rollout) rollouts[i % indices.length]!.push(rollout)
    }
    const predictors = student.namedPredictors().map(([name]) => name)
    const formed = dspyGroups({ rollouts, predictors, settings, random })
    // arbor-ai switches the second question off on the adapter that it formats with: from here on for rollouts, too, if it is theirs.
    if (settings.compat === 'dspy' && formed.groups.length > 0 && trainingAdapter(settings) === currentSettings().adapter)
      this.#adapterFallback = false
    return formed
  }

  #asConfigured<T>(run: () => Promise<T>): Promise<T> {
    return this.#adapterFallback ? run() : context({ adapterFallback: false }, run)
  }

  #metrics(formatFailures: number): Record<string, number> {
    const { validationScores } = this.run
    const score = validationScores.get(this.#step) ?? (this.#step === 0 ? validationScores.get(-1) : undefined)
    return { ...(score === undefined ? {} : { validation_score: score }), format_failures: formatFailures }
  }

  async #validate(job: ReinforceJob, step: number): Promise<void> {
    const { settings } = this.owner
    const due = step === -1 || step === settings.numTrainSteps - 1 || (step + 1) % settings.numStepsForVal === 0
    const scores = due ? await this.#scores() : null
    if (scores === null) return
    const { run } = this
    this.report('item', { validation: { step: step + 1, ...scores } })
    run.validationScores.set(step, scores.score)
    if (run.bestValidationScore !== null && scores.score <= run.bestValidationScore) return
    run.bestValidationScore = scores.score
    run.bestValidationStep = step
    if (step === -1 || settings.compat !== 'dspy' || settings.checkpoint === 'none') return
    const name = settings.checkpoint === 'single-best' ? 'model_checkpoint_best' : `model_checkpoint_step_${step + 1}`
    await job.saveCheckpoint(name, { score: scores.score, metadata: { score: scores.score, step_index: step } })
  }

  /** null: there is nothing to validate on. With both sets the scores are means, else percentages, as in DSPy. */
  async #scores(): Promise<{ score: number; trainScore: number | null } | null> {
    const { reportTrainScores, metric, numThreads, failureScore } = this.owner.settings
    const { student, trainset, valset } = this.input
    const devset = [...(valset ?? []), ...(reportTrainScores ? trainset : [])]
    if (devset.length === 0) return null
    const maxErrors = 10 * (valset ?? trainset).length
    const evaluate = new Evaluate({
      devset,
      metric,
      numThreads,
      failureScore,
      maxErrors,
      displayProgress: true,
      title: 'Validation',
    })
    const { score, results } = await this.#asConfigured(() => evaluate.call(student))
    if (!valset) return { score, trainScore: score }
    if (!reportTrainScores) return { score, trainScore: null }
    const mean = (part: typeof results) => part.reduce((sum, one) => sum + Number(one.score), 0) / part.length
    return { score: mean(results.slice(0, valset.length)), trainScore: mean(results.slice(valset.length)) }
  }

  report(phase: 'start' | 'item' | 'end', payload: DspyGrpoProgress): void {
    const total = this.owner.settings.numTrainSteps
    reportProgress({ kind: `grpo:${phase}`, id: this.#id, title: 'GRPO', done: this.#step, total, payload })
  }
}

/** `list(set(pending) - set(fulfilled))`: in the order of CPython's sets, which keeps the table of a set that is much larger than the other. */
function availableIds(pending: readonly number[], fulfilled: readonly number[]): number[] {
  const [open, served] = [new PythonSet(pending), new PythonSet(fulfilled)]
  const copied = open.size >> 2 > served.size
  const left = [...(copied ? new PythonSet(open) : open)].filter((id) => !served.has(id))
  return copied ? left : [...new PythonSet(left)]
}
