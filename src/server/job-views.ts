// Training jobs of both kinds as the page of the server and other readers see them. Nothing here changes a job.

import {
  bareModelName,
  type CheckpointRecord,
  type FineTuningStep,
  HyperparametersSchema,
  type JobDetail,
  type JobSummary,
  type RolloutGroup,
  TrainerConfigSchema,
} from '../protocol'
import type { EarlierRun } from './earlier-runs'
import type { FineTuningJob } from './fine-tuning-job'
import type { GrpoJob } from './grpo-job'
import { HttpError } from './http-errors'
import { RolloutLog } from './rollout-log'
import type { RunFolder } from './run-folder'
import type { Services } from './services'

/** Values of a job's curve in a list: enough for a line the size of a word. */
const RECENT = 60

export class JobViews {
  private readonly logs = new WeakMap<object, RolloutLog>()
  private readonly configs = new WeakMap<GrpoJob | FineTuningJob, StoredConfig>()
  private readonly ended = new WeakMap<FineTuningJob, JobSummary>() // they no longer change, and asking for them reads files

  constructor(private readonly services: Services) {}

  /** Newest first. */
  list(): JobSummary[] {
    const { jobs, fineTuning, earlier } = this.services
    const all = [...jobs.list().map((job) => this.ofGrpo(job)), ...fineTuning.list().map((job) => this.ofTuning(job))]
    const ours = new Set(all.map(({ id }) => id))
    return [...all, ...earlier.list((id) => ours.has(id))].sort((a, b) => b.created - a.created)
  }

  /** @throws HttpError 404 for an id that neither a job nor an earlier run has */
  detail(id: string): JobDetail {
    const job = this.find(id)
    if ('summary' in job) return { ...job.summary, ...withChosen(job.config, job.defaults) }
    if (!isGrpo(job)) {
      const { hyperparameters } = job.object()
      return { ...this.ofTuning(job), ...withChosen(hyperparameters, HyperparametersSchema.parse({})) }
    }
    return { ...this.ofGrpo(job), ...withChosen(job.setup.config, TrainerConfigSchema.parse({})) }
  }

  /** The groups of one step of a GRPO job, with their prompts. @throws HttpError 404 */
  rollouts(id: string, step: number): RolloutGroup[] {
    const job = this.find(id)
    const about =
      'summary' in job ? job.summary : { id: job.id, kind: isGrpo(job) ? 'grpo' : 'sft', step: isGrpo(job) ? job.step : 0 }
    if (about.kind === 'sft')
      throw new HttpError(404, `${about.id} is a fine-tuning job: it has no rollouts.`, { code: 'no_rollouts' })
    let log = this.logs.get(job)
    if (!log) this.logs.set(job, (log = new RolloutLog(folderOf(job).path)))
    const groups = log.groups(step)
    if (groups.length > 0) return groups
    throw new HttpError(404, `${about.id} has no rollouts of step ${step}; it has made ${about.step} steps.`, {
      code: 'no_rollouts',
      param: 'step',
    })
  }

  /** The updates of a fine-tuning job after number `after`. @throws HttpError 404 */
  losses(id: string, after: number): FineTuningStep[] {
    const job = this.find(id)
    if ('summary' in job ? job.summary.kind === 'grpo' : isGrpo(job))
      throw new HttpError(404, `${bareModelName(id)} is a GRPO job: see its step records.`, { code: 'no_losses' })
    const losses = 'summary' in job ? job.folder.losses() : lossesOf(job as FineTuningJob)
    return losses.filter(({ step }) => step > after)
  }

  private find(id: string): GrpoJob | FineTuningJob | EarlierRun {
    const { jobs, fineTuning, earlier } = this.services
    const name = bareModelName(id)
    // Not fineTuning.find: that opens the weights of a job from before a restart, and looking must not.
    const job = jobs.find(name) ?? fineTuning.list().find((one) => one.id === name) ?? earlier.find(name)
    if (job) return job
    throw new HttpError(404, `No job "${id}" in this server, and no run of that name in its storage.`, {
      code: 'job_not_found',
      param: 'id',
    })
  }

  private ofGrpo(job: GrpoJob): JobSummary {
    const { folder, config } = job.setup
    const { created, model } = this.stored(job)
    return {
      id: job.id,
      kind: 'grpo',
      status: job.status,
      reason: job.reason,
      model,
      serves: job.serves,
      earlier: false,
      created,
      changed: job.records.at(-1)?.time ?? created,
      step: job.step,
      steps: config.groups_per_step === null ? null : config.max_steps, // Arbor's clients don't say how many there will be
      recent: job.records.slice(-RECENT).map(({ reward }) => reward),
      checkpoints: Object.values(job.fields().checkpoints).map(checkpointView),
      folder: folder.path,
    }
  }

  private ofTuning(job: FineTuningJob): JobSummary {
    const known = this.ended.get(job)
    if (known) return known
    const summary = this.tuningSummary(job)
    if (job.ended) this.ended.set(job, summary)
    return summary
  }

  private tuningSummary(job: FineTuningJob): JobSummary {
    const { status, model, error, finished_at } = job.object()
    const { created } = this.stored(job)
    const losses = lossesOf(job)
    const last = losses.at(-1)
    return {
      id: job.id,
      kind: 'sft',
      status,
      reason: error?.message ?? null,
      model,
      serves: job.serves,
      earlier: false,
      created,
      changed: finished_at ?? job.events.at(-1)?.created_at ?? created,
      step: last?.step ?? 0,
      steps: last?.steps ?? null,
      recent: losses.slice(-RECENT).map(({ loss }) => loss),
      checkpoints: (job.ended ? job.folder.checkpoints() : []).map(checkpointView),
      folder: job.folder.path,
    }
  }

  /** What the run's folder says of its beginning; it never changes. */
  private stored(job: GrpoJob | FineTuningJob): StoredConfig {
    let config = this.configs.get(job)
    if (!config) {
      config = (isGrpo(job) ? job.setup.folder : job.folder).config() as StoredConfig
      this.configs.set(job, config)
    }
    return config
  }
}

function folderOf(job: GrpoJob | FineTuningJob | EarlierRun): RunFolder {
  return 'setup' in job ? job.setup.folder : job.folder
}

function checkpointView(checkpoint: CheckpointRecord): JobSummary['checkpoints'][number] {
  const score = checkpoint.metadata?.['score']
  const { checkpoint_name: name, global_step: step, timestamp: time } = checkpoint
  return { name, step, time, score: typeof score === 'number' ? score : null }
}

interface StoredConfig {
  readonly created: number
  readonly model: string
}

function isGrpo(job: GrpoJob | FineTuningJob): job is GrpoJob {
  return 'records' in job
}

/** A job of an earlier process has its updates on disk only. */
function lossesOf(job: FineTuningJob): readonly FineTuningStep[] {
  return job.steps.length === 0 && job.ended ? job.folder.losses() : job.steps
}

function withChosen(config: Readonly<Record<string, unknown>>, defaults: Readonly<Record<string, unknown>>) {
  const differs = (key: string) => JSON.stringify(config[key]) !== JSON.stringify(defaults[key])
  return { config: { ...config }, chosen: Object.keys(config).filter(differs) }
}
