// Weights & Biases: a run in wandb's own offline format, in the run's folder, ready for `wandb sync`.

import { randomInt } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { cpus, hostname, platform, release } from 'node:os'
import { join } from 'node:path'
import { varint } from './protobuf'
import { COMPLETION_COLUMNS, type ReportedStep } from './reported-step'
import { type ReportedRun, type Reporter, type RunEnd, showsCompletions } from './reporter'
import { WandbLog } from './wandb-log'
import * as records from './wandb-records'
import { syncRun } from './wandb-sync'
import { writeTable } from './wandb-table'

const STEP_METRIC = 'train/global_step'
const ID_LETTERS = 'abcdefghijklmnopqrstuvwxyz0123456789'
/** As Python's client ends: 255 is its code for an interrupt. */
const EXIT_CODES: Readonly<Record<RunEnd, number>> = { succeeded: 0, failed: 1, cancelled: 255, interrupted: 255 }

export class WandbReporter implements Reporter {
  private run!: ReportedRun
  private wandb!: records.WandbRun
  private dir!: string
  private log!: WandbLog
  private count = 0
  private rows = 0

  constructor(private readonly say: (line: string) => void) {}

  /**
   * A resumed run keeps its id. Its log is written anew from the steps that count, without those that are run again; but what has been
   * uploaded can't be taken back, so then a log of its own goes on behind that.
   */
  open(run: ReportedRun, before: () => readonly ReportedStep[]): void {
    this.run = run
    const parent = join(run.folder, 'wandb')
    const names = existsSync(parent) ? readdirSync(parent).sort() : []
    const latest = names.filter((name) => name.startsWith('offline-run-')).at(-1)
    const id = latest?.split('-').at(-1) ?? newId()
    const uploaded = latest === undefined ? null : uploadedRows(join(parent, latest), id)
    const name = latest !== undefined && uploaded === null ? latest : `offline-run-${stamp(Date.now() / 1000)}-${id}`
    this.rows = uploaded ?? 0
    this.dir = join(parent, name)
    this.wandb = describeRun(run, id, this.rows)
    mkdirSync(join(this.dir, 'files'), { recursive: true })
    rmSync(join(this.dir, `run-${id}.wandb.synced`), { force: true }) // else nobody would upload what comes
    this.log = WandbLog.create(join(this.dir, `run-${id}.wandb`), this.opening(uploaded === null ? before() : []))
  }

  step(step: ReportedStep): void {
    this.log.append(this.numbered(this.row(step)))
  }

  end(how: RunEnd, _reason: string | null, signal: AbortSignal): Promise<void> | undefined {
    const seconds = Date.now() / 1000 - this.run.started
    this.log.append(this.numbered([records.exit(EXIT_CODES[how], seconds)]))
    return how === 'interrupted' ? undefined : syncRun(this.dir, this.wandb.id, { say: this.say, signal })
  }

  private *opening(before: readonly ReportedStep[]): Generator<Buffer, void, undefined> {
    const { host, started } = this.wandb
    const environment = records.environment({ os: `${platform()} ${release()}`, host, cpus: cpus().length, started })
    yield* this.numbered([records.header(), records.run(this.wandb), environment, ...records.stepMetric(STEP_METRIC)])
    for (const step of before) yield* this.numbered(this.row(step))
  }

  /** One row a step: its metrics and, where its turn has come, the table of completions. */
  private row(step: ReportedStep): Buffer[] {
    const { id, project } = this.wandb
    const table = showsCompletions(this.run, step)
      ? writeTable({ key: 'completions', step: step.step, columns: COMPLETION_COLUMNS, rows: cells(step) }, id, project, this.dir)
      : { records: [], entries: [] }
    const seconds = step.time - this.run.started
    const metrics = { ...step.metrics, [STEP_METRIC]: step.step, _timestamp: step.time, _runtime: seconds }
    const entries: records.Entry[] = [...Object.entries(metrics).map(([key, value]) => [[key], value] as const), ...table.entries]
    const duration: records.Entry = [['_wandb', 'runtime'], Math.floor(seconds)]
    const at = this.rows++ // must grow, where the step of a validation is that of the update before
    const history = records.history(at, [...entries, [['_step'], at]])
    return [...table.records, records.summary([...entries, duration]), history]
  }

  /** Every record has a number, counted from 1. */
  private numbered(all: readonly Buffer[]): Buffer[] {
    return all.map((record) => Buffer.concat([varint(1, ++this.count), record]))
  }
}

/** The variables that Python's client reads name project, entity and the rest. */
function describeRun({ id: name, config, started }: ReportedRun, id: string, startingStep: number): records.WandbRun {
  const given = (variable: string) => process.env[variable]?.trim() || null // set but empty means not set
  return {
    id,
    project: given('WANDB_PROJECT') ?? 'arbor-nb',
    entity: given('WANDB_ENTITY'),
    name: given('WANDB_NAME') ?? name,
    group: given('WANDB_RUN_GROUP'),
    jobType: given('WANDB_JOB_TYPE'),
    notes: given('WANDB_NOTES'),
    tags: given('WANDB_TAGS')?.split(',') ?? [],
    host: hostname(),
    started,
    startingStep,
    config,
  }
}

function newId(): string {
  return Array.from({ length: 8 }, () => ID_LETTERS[randomInt(ID_LETTERS.length)]).join('')
}

/** The rows that `wandb sync` has sent, by the mark and the summary that it leaves; null where it has not. */
function uploadedRows(dir: string, id: string): number | null {
  const summary = join(dir, 'files', 'wandb-summary.json')
  if (!existsSync(join(dir, `run-${id}.wandb.synced`)) || !existsSync(summary)) return null
  const { _step: last } = JSON.parse(readFileSync(summary, 'utf8')) as { _step?: number }
  return last === undefined ? null : last + 1
}

function cells({ completions }: ReportedStep): (string | number | boolean)[][] {
  return completions.map((row) => COMPLETION_COLUMNS.map((column) => row[column]))
}

/** YYYYMMDD_HHMMSS, in local time. */
function stamp(seconds: number): string {
  const date = new Date(seconds * 1000)
  const two = (value: number) => String(value).padStart(2, '0')
  const day = `${date.getFullYear()}${two(date.getMonth() + 1)}${two(date.getDate())}`
  return `${day}_${two(date.getHours())}${two(date.getMinutes())}${two(date.getSeconds())}`
}
