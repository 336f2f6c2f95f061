// One run's folder, read only. A run may be writing it at this moment, or have died while it did.

import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { OptionError } from '../errors'
import { type StepRecord, StepRecordSchema } from '../protocol'

export type RunKind = 'grpo' | 'fine-tuning'
/** `interrupted`: it may be resumed. `unknown`: from before runs said so. */
export type RunState = 'running' | 'succeeded' | 'failed' | 'cancelled' | 'interrupted' | 'unknown'

/** A step's numbers, without its texts. */
export type StepRow = Readonly<Record<string, number | null>>
type Fields = Readonly<Record<string, unknown>>

export interface StoredCheckpoint {
  readonly name: string
  readonly step: number
  readonly time: number // unix seconds
  /** The validation that the client noted with it, percent. */
  readonly score: number | null
  readonly folder: string
}

export interface StoredReport {
  readonly folder: string
  /** Of a W&B run; TensorBoard reads where the files lie. */
  readonly uploaded: boolean | null
}

export class StoredRun {
  readonly id: string
  readonly kind: RunKind
  readonly model: string
  readonly created: number // unix seconds
  /** What was asked for: trainer_config of a GRPO run, hyperparameters of a fine-tuning run. */
  readonly options: Fields
  readonly environment: Fields
  readonly state: RunState
  /** Why it failed or was cancelled. */
  readonly reason: string | null
  #lines: Fields[] | null = null
  #steps: StepRow[] | null = null

  /** @throws OptionError where the folder holds no run that can be read */
  constructor(readonly folder: string) {
    const config = jsonOf(join(folder, 'config.json'))
    this.id = String(config['job_id'])
    this.kind = 'trainer_config' in config ? 'grpo' : 'fine-tuning'
    this.model = String(config['model'])
    this.created = Number(config['created'] ?? 0)
    this.options = (config[this.kind === 'grpo' ? 'trainer_config' : 'hyperparameters'] ?? {}) as Fields
    this.environment = existsSync(join(folder, 'environment.json')) ? jsonOf(join(folder, 'environment.json')) : {}
    const status = existsSync(join(folder, 'status.json')) ? jsonOf(join(folder, 'status.json')) : {}
    this.state = stateOf(status)
    this.reason = typeof status['reason'] === 'string' ? status['reason'] : null
  }

  /** One row a step, in order; groups and notes stay in `records`. Read once. */
  get steps(): readonly StepRow[] {
    const isNumber = (entry: [string, unknown]): entry is [string, number | null] =>
      entry[1] === null || typeof entry[1] === 'number'
    this.#steps ??= this.lines().map((line) => Object.fromEntries(Object.entries(line).filter(isNumber)))
    return this.#steps
  }

  /** The step records of a GRPO run, with groups, completions and notes: what `plot` draws. */
  get records(): StepRecord[] {
    return this.kind === 'grpo' ? this.lines().map((line) => StepRecordSchema.parse(line)) : []
  }

  /** Oldest first. */
  checkpoints(): StoredCheckpoint[] {
    const parent = join(this.folder, 'checkpoints')
    if (!existsSync(parent)) return []
    return readdirSync(parent)
      .filter((name) => !name.startsWith('.') && existsSync(join(parent, name, 'checkpoint.json')))
      .map((name) => {
        const { global_step: step, timestamp: time, metadata } = jsonOf(join(parent, name, 'checkpoint.json'))
        const score = (metadata as Fields | null)?.['score']
        const told = typeof score === 'number' ? score : null
        return { name, step: Number(step), time: Number(time), score: told, folder: join(parent, name) }
      })
      .sort((a, b) => a.step - b.step || a.time - b.time)
  }

  /** Scores in percent, each after so many updates. A record brings the one before its update; the last one is noted with a checkpoint. */
  validations(): { readonly step: number; readonly score: number }[] {
    const carried = this.steps.map(({ step, validation_score: score }) => ({ step: step! - 1, score: score ?? null }))
    // An interrupted run's checkpoint repeats what was noted with an earlier one.
    const noted = this.checkpoints().filter(({ name }) => name !== 'interrupted')
    const all = [...noted, ...carried].flatMap(({ step, score }): [number, number][] => (score === null ? [] : [[step, score]]))
    return [...new Map(all)].map(([step, score]) => ({ step, score })).sort((a, b) => a.step - b.step)
  }

  /** Where the run is recorded besides. */
  reports(): StoredReport[] {
    const [wandb, board] = [join(this.folder, 'wandb'), join(this.folder, 'tensorboard')]
    const offline = existsSync(wandb) ? readdirSync(wandb).filter((name) => name.startsWith('offline-run-')) : []
    const isUploaded = (folder: string) => readdirSync(folder).some((name) => name.endsWith('.wandb.synced'))
    return [
      ...offline.map((name) => join(wandb, name)).map((folder) => ({ folder, uploaded: isUploaded(folder) })),
      ...(existsSync(board) ? [{ folder: board, uploaded: null }] : []),
    ]
  }

  private lines(): Fields[] {
    this.#lines ??= linesOf(join(this.folder, 'steps.jsonl'))
    return this.#lines
  }
}

/** A server that died can't say so; its process is gone. */
function stateOf({ status, pid }: Fields): RunState {
  if (status === 'running' && typeof pid === 'number') return isAlive(pid) ? 'running' : 'interrupted'
  return status === undefined ? 'unknown' : (status as RunState)
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

function jsonOf(path: string): Fields {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Fields
  } catch (cause) {
    throw new OptionError(`${path} can't be read: ${(cause as Error).message}`, { cause })
  }
}

/** The last line may be half written: it counts when it ends in a line break. */
function linesOf(path: string): Fields[] {
  if (!existsSync(path)) return []
  const lines = readFileSync(path, 'utf8').split('\n').slice(0, -1)
  return lines.map((line, i) => {
    try {
      return JSON.parse(line) as Fields
    } catch (cause) {
      throw new OptionError(`${path}: line ${i + 1} is not JSON.`, { cause })
    }
  })
}
