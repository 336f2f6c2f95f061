// A GRPO job in the words of OpenAI's fine-tuning jobs: Arbor's watch_job and shutdown_job ask for both kinds in the same routes.

import type { FineTuningJobObject, GrpoEvent, StepRecord } from '../protocol'
import type { GrpoJob } from './grpo-job'

/** @param model the base model's name */
export function grpoObject(job: GrpoJob, model: string): FineTuningJobObject {
  return {
    id: job.id,
    object: 'fine_tuning.job',
    model,
    created_at: Math.floor(job.created),
    finished_at: job.ended === null ? null : Math.floor(job.ended),
    status: job.status,
    training_file: '',
    validation_file: null,
    fine_tuned_model: job.status === 'succeeded' ? job.id : null,
    estimated_finish: null,
    error: job.reason === null ? null : { code: `job_${job.status}`, message: job.reason, param: null },
    hyperparameters: job.hyperparameters,
    trained_tokens: null,
    organization_id: 'arbor-nb',
    result_files: [],
    seed: job.hyperparameters.seed,
  }
}

/** Oldest first, and only ever more of them: watch_job counts what it has seen. */
export function grpoEvents(job: GrpoJob): GrpoEvent[] {
  const { created_at, finished_at, error } = grpoObject(job, '')
  const message = (name: string, at: number, text: string, level: GrpoEvent['level'] = 'info'): GrpoEvent => ({
    object: 'fine_tuning.job.event',
    id: `ftevent-${job.id}-${name}`,
    created_at: at,
    level,
    message: text,
    type: 'message',
    data: {},
  })
  const events = [
    message('created', created_at, `Created job ${job.id}.`),
    ...job.records.map((record) => update(job.id, record)),
  ]
  if (finished_at === null) return events
  if (error)
    return [
      ...events,
      message('end', finished_at, `The job ${job.status === 'failed' ? 'failed' : 'was ended'}: ${error.message}`, 'error'),
    ]
  return [...events, message('end', finished_at, `Trained. The model answers as "${job.id}".`)]
}

function update(id: string, record: StepRecord): GrpoEvent {
  const { step, reward, reward_std, validation_score, loss, grad_norm, learning_rate, entropy, kl } = record
  return {
    object: 'fine_tuning.job.event',
    id: `ftevent-${id}-${step}`,
    created_at: Math.floor(record.time),
    level: 'info',
    message: `Update ${step}: reward ${reward.toFixed(3)}, loss ${loss.toFixed(4)}`,
    type: 'metrics',
    data: { source: 'training_log', step, reward, reward_std, validation_score, loss, grad_norm, learning_rate, entropy, kl },
  }
}
