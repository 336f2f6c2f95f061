// Run folders for tests, as the server writes them.

import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { stepRecord } from '../display/records.fixture'
import type { StepRecord } from '../protocol'

export interface WrittenRun {
  readonly id: string
  readonly created?: number
  readonly options?: object
  readonly steps?: readonly Partial<StepRecord>[]
  readonly status?: object
  /** Name → step and score. */
  readonly checkpoints?: Readonly<Record<string, readonly [step: number, score: number | null]>>
}

export function freshStorage(): string {
  return mkdtempSync(join(tmpdir(), 'arbor-runs-'))
}

/** Writes a GRPO run, or a fine-tuning run where the id says so; answers its folder. */
export function writeRun(
  storage: string,
  { id, created = 1000, options = {}, steps = [], status, checkpoints = {} }: WrittenRun,
): string {
  const folder = join(storage, 'runs', id.replaceAll(':', '+'))
  mkdirSync(join(folder, 'checkpoints'), { recursive: true })
  const json = (path: string, value: unknown) => writeFileSync(join(folder, path), JSON.stringify(value))
  const key = id.startsWith('grpo') ? 'trainer_config' : 'hyperparameters'
  json('config.json', { job_id: id, created, model: 'arbor-tiny', [key]: options })
  json('environment.json', { arbor_nb: '0.1.0', device: 'a CPU', seed: 7 })
  if (status) json('status.json', status)
  const lines = steps.map((step, i) => `${JSON.stringify(id.startsWith('grpo') ? stepRecord(i + 1, step) : step)}\n`)
  writeFileSync(join(folder, 'steps.jsonl'), lines.join(''))
  for (const [name, [global_step, score]] of Object.entries(checkpoints)) {
    mkdirSync(join(folder, 'checkpoints', name))
    const metadata = score === null ? null : { score }
    json(`checkpoints/${name}/checkpoint.json`, { checkpoint_name: name, global_step, timestamp: global_step, metadata })
  }
  return folder
}
