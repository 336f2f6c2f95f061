// Runs of earlier servers, as their folders tell them: the page shows them beside the jobs of this process. Nothing here writes or opens weights.

import { closeSync, fstatSync, openSync, readFileSync, readSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { bareModelName, HyperparametersSchema, type JobSummary, TrainerConfigSchema } from '../protocol'
import { JOB_ID, RunFolder } from './run-folder'
import type { Stepping } from './step-stream'

type Fields = Readonly<Record<string, unknown>>

/** The newest ones: a page is no archive (`arbor-nb runs` is). */
const AT_MOST = 50
/** Of steps.jsonl, from its end: some tens of steps. */
const TAIL_BYTES = 1 << 18
const RECENT = 60

/** One run, read. */
export interface EarlierRun {
  readonly summary: JobSummary
  readonly folder: RunFolder
  /** What was asked for, and what it would have been by default. */
  readonly config: Fields
  readonly defaults: Fields
}

export class EarlierRuns {
  /** By id, with what told that the folder is as it was. */
  readonly #known = new Map<string, { readonly stamp: string; readonly run: EarlierRun | null }>()

  constructor(private readonly storage: string) {}

  /** The newest first; without those of `isOurs`, and those that another server is training now. */
  list(isOurs: (id: string) => boolean): JobSummary[] {
    const runs = RunFolder.all(this.storage).flatMap((id) => (isOurs(id) ? [] : [this.#run(id)?.summary ?? []]).flat())
    return runs.sort((a, b) => b.created - a.created).slice(0, AT_MOST)
  }

  find(name: string): EarlierRun | null {
    const id = bareModelName(name)
    return JOB_ID.test(id) && RunFolder.at(this.storage, id).exists ? this.#run(id) : null
  }

  /** Of a GRPO run, as the stream of a job's steps takes it. */
  recorded(name: string): Stepping | null {
    const run = this.find(name)
    if (run?.summary.kind !== 'grpo') return null
    const { status, reason } = run.summary
    return { records: run.folder.steps(), status, reason, changed: () => Promise.resolve() }
  }

  #run(id: string): EarlierRun | null {
    const folder = RunFolder.at(this.storage, id)
    const stamp = ['status.json', 'steps.jsonl', 'checkpoints'].map((name) => stampOf(join(folder.path, name))).join(' ')
    const known = this.#known.get(id)
    if (known?.stamp === stamp) return known.run
    const run = readRun(folder)
    this.#known.set(id, { stamp, run })
    return run
  }
}

function stampOf(path: string): string {
  const found = statSync(path, { throwIfNoEntry: false })
  return found ? `${found.mtimeMs}/${found.size}` : '-'
}

/** Null for a folder that can't be read (`arbor-nb runs` says why), and for a run that goes on in another process. */
function readRun(folder: RunFolder): EarlierRun | null {
  try {
    const stored = folder.config() as Fields
    const status = statusOf(folder)
    return status.status === 'running' ? null : asRun(folder, stored, status)
  } catch {
    return null
  }
}

function asRun(folder: RunFolder, stored: Fields, { status, reason }: Status): EarlierRun {
  const kind = 'trainer_config' in stored ? 'grpo' : 'sft'
  const config = (stored[kind === 'grpo' ? 'trainer_config' : 'hyperparameters'] ?? {}) as Fields
  const defaults = (kind === 'grpo' ? TrainerConfigSchema : HyperparametersSchema).parse({})
  const newest = tailOf(join(folder.path, 'steps.jsonl'))
  const last = newest.at(-1)
  const planned = kind === 'sft' ? last?.['steps'] : config['groups_per_step'] ? config['max_steps'] : null
  const created = Number(stored['created'] ?? 0)
  const checkpoints = folder.checkpoints()
  const summary: JobSummary = {
    id: String(stored['job_id']),
    kind,
    status,
    reason,
    model: String(stored['model']),
    serves: false,
    earlier: true,
    created,
    changed: Number(last?.['time'] ?? checkpoints.at(-1)?.timestamp ?? created),
    step: Number(last?.['step'] ?? 0),
    steps: typeof planned === 'number' ? planned : null,
    recent: newest.slice(-RECENT).map((line) => Number(line[kind === 'grpo' ? 'reward' : 'loss'])),
    checkpoints: checkpoints.map(({ checkpoint_name: name, global_step: step, timestamp: time, metadata }) => {
      const score = metadata?.['score']
      return { name, step, time, score: typeof score === 'number' ? score : null }
    }),
    folder: folder.path,
  }
  return { summary, folder, config, defaults }
}

interface Status {
  readonly status: JobSummary['status']
  readonly reason: string | null
}

/** A server that died can't say so: its process is gone, or its number is ours, and the run is none of ours. */
function statusOf(folder: RunFolder): Status {
  const path = join(folder.path, 'status.json')
  if (stampOf(path) === '-') return { status: 'interrupted', reason: null }
  const { status, reason, pid } = JSON.parse(readFileSync(path, 'utf8')) as Fields
  const runs = status === 'running' && pid !== process.pid && isAlive(Number(pid))
  const said = status === 'running' ? (runs ? 'running' : 'interrupted') : (status as JobSummary['status'])
  return { status: said, reason: typeof reason === 'string' ? reason : null }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** The whole lines at the end of a log. */
function tailOf(path: string): Fields[] {
  if (stampOf(path) === '-') return []
  const file = openSync(path, 'r')
  try {
    const { size } = fstatSync(file)
    const bytes = Buffer.alloc(Math.min(size, TAIL_BYTES))
    const read = readSync(file, bytes, 0, bytes.length, size - bytes.length)
    const lines = bytes
      .toString('utf8', 0, read)
      .split('\n')
      .slice(size > TAIL_BYTES ? 1 : 0, -1)
    return lines.map((line) => JSON.parse(line) as Fields)
  } finally {
    closeSync(file)
  }
}
