// The files of one run: config.json, environment.json, checkpoints/, steps.jsonl, and of a GRPO run rollouts.jsonl. Beside them reports (report/).
// Everything but the two logs is written to a temporary name and renamed; the logs grow by whole lines.

import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join, resolve, sep } from 'node:path'
import { writeJson, writeWhole } from '../engine/whole-file'
import { OptionError } from '../errors'
import {
  CHECKPOINT_NAME,
  type CheckpointRecord,
  CheckpointRecordSchema,
  type FineTuningStep,
  type StepRecord,
  StepRecordSchema,
} from '../protocol'
import type { RolloutLine } from './step-record'

export const JOB_ID = /^[A-Za-z0-9][A-Za-z0-9._:-]{0,254}$/

/** What a run's config.json says of its base: its name, and where its files lay, so that a run can be exported without its server. */
export function baseFields({ modelNames, basePath }: { readonly modelNames: readonly string[]; readonly basePath?: string }) {
  return { base: modelNames[0]!, ...(basePath === undefined ? {} : { base_path: basePath }) }
}

export class RunFolder {
  private constructor(readonly path: string) {}

  /** The folder of `jobId` under `storage`; nothing is created. Colons become "+", which no id holds. Throws OptionError for an id that is none. */
  static at(storage: string, jobId: string): RunFolder {
    if (!JOB_ID.test(jobId)) throw new OptionError(`"${jobId}" is not a job id: letters, digits, ".", "_", "-" and ":".`)
    const runs = resolve(storage, 'runs')
    const path = resolve(runs, jobId.replaceAll(':', '+'))
    if (!path.startsWith(runs + sep)) throw new OptionError(`"${jobId}" leads out of ${runs}.`)
    return new RunFolder(path)
  }

  /** Ids of all whole runs under `storage`, in the order of their names. */
  static all(storage: string): string[] {
    const runs = resolve(storage, 'runs')
    if (!existsSync(runs)) return []
    return readdirSync(runs)
      .sort()
      .filter((name) => existsSync(join(runs, name, 'config.json')))
      .map((name) => name.replaceAll('+', ':'))
  }

  get exists(): boolean {
    return existsSync(join(this.path, 'config.json'))
  }

  /** Makes the folder; config.json is written last, so a folder with one is whole. */
  create(files: { config: unknown; environment: unknown }): void {
    mkdirSync(join(this.path, 'checkpoints'), { recursive: true })
    writeJson(join(this.path, 'environment.json'), files.environment)
    writeJson(join(this.path, 'config.json'), files.config)
  }

  config(): unknown {
    return JSON.parse(readFileSync(join(this.path, 'config.json'), 'utf8'))
  }

  appendStep(record: StepRecord, rollouts: readonly unknown[]): void {
    appendLines(join(this.path, 'rollouts.jsonl'), rollouts)
    appendLines(join(this.path, 'steps.jsonl'), [record])
  }

  /** One update of a fine-tuning job. */
  appendLoss(step: FineTuningStep): void {
    appendLines(join(this.path, 'steps.jsonl'), [step])
  }

  /** Of a fine-tuning run. */
  losses(): FineTuningStep[] {
    return readLines(join(this.path, 'steps.jsonl')) as FineTuningStep[]
  }

  steps(): StepRecord[] {
    return readLines(join(this.path, 'steps.jsonl')).map((line) => StepRecordSchema.parse(line))
  }

  rollouts(): RolloutLine[] {
    return readLines(join(this.path, 'rollouts.jsonl')) as RolloutLine[]
  }

  /** Forgets what was logged after `step`, so that a resumed run writes each step once. */
  cutAfter(step: number): void {
    for (const name of ['steps.jsonl', 'rollouts.jsonl']) {
      const path = join(this.path, name)
      const kept = readLines(path).filter((line) => (line as { step: number }).step <= step)
      writeWhole(path, kept.map((line) => `${JSON.stringify(line)}\n`).join(''))
    }
  }

  /**
   * Writes a checkpoint: `save` fills a folder of its own, which takes the name when it is complete.
   * A checkpoint of this name is replaced; at no moment is there neither the old nor the new one.
   */
  async saveCheckpoint(
    record: Omit<CheckpointRecord, 'checkpoint_dir'>,
    save: (dir: string) => Promise<void>,
  ): Promise<CheckpointRecord> {
    const name = record.checkpoint_name
    if (!CHECKPOINT_NAME.test(name)) throw new OptionError(`"${name}" is not a checkpoint name.`)
    const target = join(this.path, 'checkpoints', name)
    const fresh = join(this.path, 'checkpoints', `.saving-${name}`)
    const replaced = join(this.path, 'checkpoints', `.replaced-${name}`)
    rmSync(fresh, { recursive: true, force: true })
    try {
      await save(fresh)
    } catch (error) {
      rmSync(fresh, { recursive: true, force: true }) // a full disk gets its room back
      throw error
    }
    const full: CheckpointRecord = { ...record, checkpoint_dir: target }
    writeJson(join(fresh, 'checkpoint.json'), full)
    rmSync(replaced, { recursive: true, force: true })
    if (existsSync(target)) renameSync(target, replaced)
    renameSync(fresh, target)
    rmSync(replaced, { recursive: true, force: true })
    return full
  }

  removeCheckpoint(name: string): void {
    if (CHECKPOINT_NAME.test(name)) rmSync(join(this.path, 'checkpoints', name), { recursive: true, force: true })
  }

  /** All whole checkpoints, oldest first. One that a crash left between two names is given its name back. */
  checkpoints(): CheckpointRecord[] {
    const folder = join(this.path, 'checkpoints')
    if (!existsSync(folder)) return []
    for (const entry of readdirSync(folder)) {
      const name = entry.startsWith('.replaced-') ? entry.slice('.replaced-'.length) : null
      if (name !== null && !existsSync(join(folder, name))) renameSync(join(folder, entry), join(folder, name))
    }
    return readdirSync(folder)
      .filter((name) => !name.startsWith('.') && existsSync(join(folder, name, 'checkpoint.json')))
      .map((name) => {
        const text = readFileSync(join(folder, name, 'checkpoint.json'), 'utf8')
        return { ...CheckpointRecordSchema.parse(JSON.parse(text)), checkpoint_dir: join(folder, name) }
      })
      .sort((a, b) => a.global_step - b.global_step || a.timestamp - b.timestamp)
  }
}

/** Appends all lines in one write. A torn last line of an earlier process is gone by then: resume cuts the logs. */
function appendLines(path: string, values: readonly unknown[]): void {
  if (values.length === 0) return
  const text = values.map((value) => `${JSON.stringify(value)}\n`).join('')
  appendFileSync(path, text)
}

/** The lines of a log. The last one may be torn by a crash: it counts only when it ends in a line break. */
function readLines(path: string): unknown[] {
  if (!existsSync(path)) return []
  return readFileSync(path, 'utf8')
    .split('\n')
    .slice(0, -1)
    .map((line, i) => {
      try {
        return JSON.parse(line) as unknown
      } catch (cause) {
        throw new OptionError(`${path}: line ${i + 1} is not JSON.`, { cause })
      }
    })
}
