// What the page asks the server: how it is every second, its jobs every other, the shown job's steps as they come. A hidden page asks nothing.

import type { FineTuningStep, Health, JobDetail, JobSummary, RolloutGroup, StepRecord } from '../../protocol'
import { changed, state } from './state.js'

const HEALTH_MS = 1000
const SAMPLES = 180
/** While nobody reads, the newest step's rollouts are shown at most this often. */
const FOLLOW_MS = 2500

const OFFLINE = 'The server does not answer. What is shown is what it said last; this page goes on when it is back.'

let stream: EventSource | null = null
let turn = 0
/** The jobs and checkpoints that the list of models was asked for. */
let served = ''
let followed = 0
/** The shown job's stream has told its end. */
let told = false
/** The rollouts that are being fetched. */
let fetching = ''

/** Paths are relative: the page may stand behind a proxy. */
async function get<T>(path: string): Promise<T> {
  const response = await fetch(path, { headers: { accept: 'application/json' } })
  const body = await response.json()
  if (!response.ok) throw new Refusal(body?.error?.message ?? `${path}: ${response.status}`)
  return body as T
}

/** An answer, but no good one: a model that is still loaded, a job that is gone. */
class Refusal extends Error {}

interface Listed<T> {
  readonly data: readonly T[]
}

const jobPath = (id: string) => `jobs/${encodeURIComponent(id)}`
/** Of what is asked for by the way: the next question tries again. */
const untold = (error: unknown) => console.info(error)

/** Asks for ever. */
export async function watch(): Promise<void> {
  for (;;) {
    if (!document.hidden) await ask()
    await new Promise((resolve) => setTimeout(resolve, HEALTH_MS))
  }
}

async function ask(): Promise<void> {
  try {
    const [health] = await Promise.all([get<Health>('health'), turn % 2 === 0 ? askJobs() : null])
    turn++
    state.problem = null
    // An engine in a long pass says nothing new: that answer is the one before.
    const before = state.health.at(-1)?.time === health.time ? state.health.slice(0, -1) : state.health
    state.health = [...before, health].slice(-SAMPLES)
    listen()
    await follow()
  } catch (error) {
    state.problem = error instanceof Refusal ? error.message : OFFLINE
    untold(error)
  }
  changed()
}

async function askJobs(): Promise<void> {
  const jobs = await get<Listed<JobSummary>>('jobs')
  state.jobs = jobs.data
  // The server looks through its runs for the models that it could answer as: asked only when there may be others.
  const may = JSON.stringify(jobs.data.map(({ id, serves, checkpoints }) => [id, serves, checkpoints.length]))
  if (may !== served) state.models = (await get<Listed<{ id: string }>>('models')).data.map(({ id }) => id)
  served = may
  const known = jobs.data.some(({ id }) => id === state.job)
  if (!state.chosen || !known) show(newestJob(jobs.data), { chosen: false })
  const job = jobs.data.find(({ id }) => id === state.job)
  if (job?.kind === 'grpo' && job.step < (state.records.at(-1)?.step ?? 0)) startAnew()
  if (job && state.detail && job.status !== state.detail.status) await askDetail(job.id)
  if (job?.kind === 'sft' && (state.losses.at(-1)?.step ?? 0) < job.step) await askLosses(job.id)
}

/** The job was resumed from a checkpoint: what came after that is no more. */
function startAnew(): void {
  Object.assign(state, { records: [], rollouts: null, step: null, turning: null, generation: state.generation + 1 })
  told = false
  if (stream) leave(stream)
}

function newestJob(jobs: readonly JobSummary[]): string | null {
  const own = jobs.filter(({ earlier }) => !earlier)
  return (own.find(({ status }) => status === 'running') ?? own[0])?.id ?? null
}

/** Turns to a job. */
export function show(id: string | null, { chosen }: { chosen: boolean }): void {
  state.chosen = chosen && id !== null
  if (id === state.job) return
  const fresh = {
    detail: null,
    records: [],
    losses: [],
    rollouts: null,
    step: null,
    turning: null,
    hover: null,
    group: null,
    predictor: '',
  }
  Object.assign(state, fresh, { job: id, generation: state.generation + 1 })
  state.unfolded.clear()
  stream?.close()
  stream = null
  told = false
  if (id !== null) askDetail(id).catch(untold)
  changed({ now: true })
}

async function askDetail(id: string): Promise<void> {
  const detail = await get<JobDetail>(jobPath(id))
  if (state.job !== id) return
  state.detail = detail
  if (detail.kind === 'sft') await askLosses(id)
  else listen()
  changed()
}

async function askLosses(id: string): Promise<void> {
  const after = state.losses.at(-1)?.step ?? 0
  const { data } = await get<Listed<FineTuningStep>>(`${jobPath(id)}/losses?after=${after}`)
  if (state.job !== id) return
  state.losses = [...state.losses.filter(({ step }) => step <= after), ...data]
  changed()
}

/** The shown job's steps, from the last one known on; while somebody looks, and until the job has ended. */
function listen(): void {
  const { job: id, detail } = state
  if (stream || told || document.hidden || id === null || detail?.kind !== 'grpo' || detail.id !== id) return
  const after = state.records.at(-1)?.step ?? 0
  const own = new EventSource(`fine_tuning/grpo/steps?job_id=${encodeURIComponent(id)}&texts=0&after=${after}`)
  stream = own
  own.addEventListener('step', ({ data }: MessageEvent<string>) => {
    const record = JSON.parse(data) as StepRecord
    if (state.job === id && record.step > (state.records.at(-1)?.step ?? 0)) state.records.push(record)
    changed()
  })
  own.addEventListener('end', () => {
    told = state.job === id
    leave(own)
    follow({ last: true }).catch(untold)
  })
  // A browser tries again by itself, unless the server refused.
  own.addEventListener('error', () => own.readyState === EventSource.CLOSED && leave(own))
}

function leave(own: EventSource): void {
  own.close()
  if (stream === own) stream = null
}

// A page that nobody sees holds no connection: a browser has six for one server.
document.addEventListener('visibilitychange', () => {
  if (document.hidden && stream) leave(stream)
  else listen()
})

/** Fetches the rollouts that are to be read: a chosen step's, or now and then the newest's. */
export async function follow({ last = false } = {}): Promise<void> {
  const step = state.step ?? state.records.at(-1)?.step
  if (step === undefined || state.rollouts?.step === step) return
  const early = state.reading || performance.now() - followed < FOLLOW_MS
  if (state.step === null && state.rollouts && !last && early) return
  await read(step)
}

async function read(step: number): Promise<void> {
  const id = state.job
  const wanted = `${id} ${step}`
  if (id === null || fetching === wanted) return
  fetching = wanted
  followed = performance.now()
  try {
    const { data } = await get<Listed<RolloutGroup>>(`${jobPath(id)}/rollouts?step=${step}`)
    if (fetching !== wanted || state.job !== id) return // a person went on
    state.rollouts = { step, groups: data }
    state.group = null
    state.unfolded.clear()
  } finally {
    if (fetching === wanted) fetching = ''
    if (state.turning === step) state.turning = null
  }
  changed({ now: true })
}

/** A person turns to a step; null: to the newest, and on from there. */
export function turnTo(step: number | null): void {
  state.step = step === state.records.at(-1)?.step ? null : step
  if (step === null) follow({ last: true }).catch(untold)
  else if (state.rollouts?.step === step) state.turning = null
  else {
    state.turning = step
    read(step).catch(untold)
  }
  changed({ now: true })
}
