// OpenAI's routes for files and fine-tuning jobs. GRPO jobs are seen here as well: Arbor's watch_job and shutdown_job ask for both kinds.

import type { Context, Hono } from 'hono'
import {
  bareModelName,
  type CheckpointRecord,
  type FileObject,
  type FineTuningEvent,
  type FineTuningJobObject,
  FineTuningRequestSchema,
  type GrpoEvent,
} from '../protocol'
import type { FileStore } from './file-store'
import type { FineTuningJob } from './fine-tuning-job'
import type { GrpoJob } from './grpo-job'
import { grpoEvents, grpoObject } from './grpo-job-object'
import { HttpError } from './http-errors'
import { listPage } from './list-page'
import { bounded, readBody } from './request-body'
import type { RouteEnv, Services } from './services'
import { parseTrainingFile } from './training-file'

const MAX_FILE_BYTES = 512 * 1024 * 1024

export function fileRoutes(app: Hono<RouteEnv>, files: FileStore): void {
  app.post('/files', async (c) => c.json(files.add(await readUpload(c.req.raw))))
  app.get('/files', (c) => {
    const purpose = c.req.query('purpose')
    return c.json(
      listPage(
        files.list().filter((file: FileObject) => purpose === undefined || file.purpose === purpose),
        c,
      ),
    )
  })
  app.get('/files/:id', (c) => c.json(files.get(c.req.param('id'))))
  app.get('/files/:id/content', (c) => c.text(files.text(c.req.param('id'))))
  app.delete('/files/:id', (c) => {
    files.delete(c.req.param('id'))
    return c.json({ id: c.req.param('id'), object: 'file', deleted: true })
  })
}

export function jobRoutes(app: Hono<RouteEnv>, services: Services): void {
  const jobs = '/fine_tuning/jobs'
  const { fineTuning } = services
  const find = (c: Context<RouteEnv>) => findJob(services, c.req.param('id')!)
  app.post(jobs, async (c) => c.json(fineTuning.create(await readBody(c.req.raw, FineTuningRequestSchema)).object()))
  app.get(jobs, (c) => c.json(listPage(allJobs(services), c)))
  app.get(`${jobs}/:id`, (c) => c.json(find(c).object()))
  app.get(`${jobs}/:id/events`, (c) => c.json(eventPage(find(c).events, c)))
  app.get(`${jobs}/:id/checkpoints`, (c) => c.json(checkpointPage(services.saved.checkpoints(c.req.param('id')!), c)))
  app.post(`${jobs}/:id/cancel`, async (c) => {
    const job = find(c)
    await job.cancel()
    return c.json(job.object())
  })
}

/** What the routes need of a job of either kind. */
interface AnyJob {
  object(): FineTuningJobObject
  readonly events: readonly (FineTuningEvent | GrpoEvent)[]
  cancel(): Promise<void>
}

/** @throws HttpError 404 */
function findJob({ fineTuning, jobs, modelNames }: Services, id: string): AnyJob {
  const tuned = fineTuning.find(id)
  if (tuned) return { object: () => tuned.object(), events: tuned.events, cancel: () => cancelTuning(tuned) }
  const grpo = jobs.find(bareModelName(id))
  if (grpo) return { object: () => grpoObject(grpo, modelNames[0]!), events: grpoEvents(grpo), cancel: () => cancelGrpo(grpo) }
  const known = [...fineTuning.list().map((job) => job.id), ...jobs.serving().map((job) => job.id)]
  throw new HttpError(
    404,
    `No job "${id}" in this server. ${known.length > 0 ? `Jobs: ${known.join(', ')}.` : 'It has no jobs.'}`,
    {
      code: 'job_not_found',
    },
  )
}

async function cancelTuning(job: FineTuningJob): Promise<void> {
  if (job.ended) throw new HttpError(400, `Job ${job.id} has ended (${job.status}).`, { code: 'job_ended' })
  job.stop('cancelled by a client')
}

async function cancelGrpo(job: GrpoJob): Promise<void> {
  if (job.status !== 'running') throw new HttpError(400, `Job ${job.id} has ended (${job.status}).`, { code: 'job_ended' })
  await job.cancel()
}

/**
 * All events oldest first, as Arbor's watch_job counts them; with a `limit` the newest first, as OpenAI's clients page through them.
 * `after` is the id of the last event seen.
 */
function eventPage(events: AnyJob['events'], c: Context<RouteEnv>) {
  return listPage(c.req.query('limit') === undefined ? events : [...events].reverse(), c)
}

/** Jobs of both kinds, the newest first. */
function allJobs({ fineTuning, jobs, modelNames }: Services): FineTuningJobObject[] {
  const tuned = fineTuning.list().map((job) => job.object())
  const trained = jobs.list().map((job) => grpoObject(job, modelNames[0]!))
  return [...tuned, ...trained].reverse().sort((a, b) => b.created_at - a.created_at)
}

/** OpenAI's page of checkpoints, newest first; each can be asked as the model `fine_tuned_model_checkpoint`. */
function checkpointPage({ job, checkpoints }: { job: string; checkpoints: readonly CheckpointRecord[] }, c: Context<RouteEnv>) {
  const all = [...checkpoints].reverse().map(({ checkpoint_name: name, global_step, metadata, timestamp }) => ({
    id: `ftckpt:${job}@${name}`,
    object: 'fine_tuning.job.checkpoint',
    created_at: Math.floor(timestamp),
    fine_tuned_model_checkpoint: `${job}@${name}`,
    fine_tuning_job_id: job,
    metrics: { step: global_step, ...metadata },
    step_number: global_step,
  }))
  return listPage(all, c, 10)
}

/** @throws HttpError 400 for a form without a file, or one that can't be trained on; 413 */
async function readUpload(request: Request): Promise<{ filename: string; purpose: string; text: string }> {
  const form = await readForm(bounded(request, MAX_FILE_BYTES))
  const file = form.get('file')
  const purpose = form.get('purpose')
  if (file === null || typeof file === 'string') throw badUpload('The form has no file. Send it as the part "file".')
  if (typeof purpose !== 'string') throw badUpload('The form has no purpose. Send "fine-tune" as the part "purpose".')
  const filename = file.name
  if (purpose === 'fine-tune' && !filename.endsWith('.jsonl'))
    throw badUpload(`A file to train on is JSON lines (.jsonl), but its name is "${filename}".`)
  const text = await file.text()
  if (purpose === 'fine-tune') parseTrainingFile(text, filename)
  return { filename, purpose, text }
}

async function readForm(request: Request) {
  try {
    return await request.formData()
  } catch (cause) {
    for (let error: unknown = cause; error instanceof Error; error = error.cause) if (error instanceof HttpError) throw error
    throw badUpload(`The body is not a form with a file (multipart/form-data): ${(cause as Error).message}`)
  }
}

function badUpload(message: string): HttpError {
  return new HttpError(400, message, { code: 'invalid_file', param: 'file' })
}
