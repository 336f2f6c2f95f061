// A run that `report_to` recorded, read by the programs that people use: the real wandb and the real TensorBoard, against steps.jsonl and
// rollouts.jsonl. wandb's own command uploads it to a stand-in on the loopback address.

import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import type { ServerInfo } from '../../src/optimize'
import type { StepRecord } from '../../src/protocol'
import { compile, freshFolder, ROOT, recordsOnDisk, runFolder, serve, sleep, TRAIN_KWARGS, whyNot } from '../e2e/tiny'
import { noPeers, python, SLOW } from './python'
import { type WandbCloud, wandbCloud } from './wandb-cloud'

interface Artifact {
  readonly name: string
  readonly digest: string
  readonly manifest: { readonly contents: readonly { digest: string; local_path: string; path: string; size: string }[] }
}

interface Read {
  readonly records: readonly { readonly num: number; readonly type: string; readonly [type: string]: unknown }[]
  readonly scalars: Readonly<Record<string, readonly (readonly [step: number, value: number, time: number])[]>>
  readonly texts: Readonly<Record<string, readonly (readonly [step: number, text: string, plugin: string])[]>>
  readonly table: { readonly content: Record<string, unknown>; readonly path: string }
  readonly digests: readonly { readonly entry: string; readonly artifact: string }[]
}

interface Rollouts {
  readonly step: number
  readonly predictor: string
  readonly messages: readonly { role: string; content: string }[]
  readonly rollouts: readonly { completion: string; reward: number; advantage: number; tokens: number; truncated: boolean }[]
}

const BIN = join(ROOT, 'build/venv-peers/bin')
const COLUMNS = ['step', 'predictor', 'prompt', 'completion', 'reward', 'advantage', 'tokens', 'truncated']
const EVERY = 2
const storagePath = freshFolder()
let missing: string | null
let server: ServerInfo
let cloud: WandbCloud
let wandbRun: string
let records: StepRecord[]
let rows: Map<number, (string | number | boolean)[][]>
let read: Read
const said: string[] = []

beforeAll(async () => {
  missing = noPeers() ?? (await whyNot())
  if (missing !== null) return
  cloud = await wandbCloud()
  vi.stubEnv('PATH', `${BIN}${delimiter}${process.env['PATH']}`)
  vi.stubEnv('WANDB_API_KEY', 'a'.repeat(40))
  vi.stubEnv('WANDB_BASE_URL', cloud.url)
  vi.stubEnv('WANDB_PROJECT', 'peers')
  for (const name of ['WANDB_CONFIG_DIR', 'WANDB_CACHE_DIR', 'WANDB_DATA_DIR']) vi.stubEnv(name, freshFolder())
  server = await serve({ storagePath, onLog: (line) => said.push(line) })
  const trainKwargs = { ...TRAIN_KWARGS, report_to: ['wandb', 'tensorboard'], logging_steps: EVERY }
  const { compiler } = await compile(server, { trainKwargs, numStepsForVal: 3 })
  const jobId = compiler.run!.jobId
  const folder = runFolder(storagePath, jobId)
  records = recordsOnDisk(storagePath, jobId)
  rows = tableRows(folder)
  const [name] = readdirSync(join(folder, 'wandb')).filter((entry) => entry.startsWith('offline-run-'))
  wandbRun = join(folder, 'wandb', name!)
  for (let left = 600; left > 0 && !said.some((line) => line.startsWith('W&B: ')); left--) await sleep(100)
  read = await python<Read>('reports.py', {
    bin: BIN,
    wandb: wandbRun,
    tensorboard: join(folder, 'tensorboard'),
    columns: COLUMNS,
    rows: [...rows.values()].at(-1),
  })
}, SLOW)
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))
afterAll(async () => {
  await server?.close()
  cloud?.close()
  vi.unstubAllEnvs()
})

/** What the tables have to hold, from the run's own files: of the first step and every second one. */
function tableRows(folder: string): Map<number, (string | number | boolean)[][]> {
  const out = new Map<number, (string | number | boolean)[][]>()
  for (const line of readFileSync(join(folder, 'rollouts.jsonl'), 'utf8').trim().split('\n')) {
    const { step, predictor, messages, rollouts } = JSON.parse(line) as Rollouts
    if (step !== 1 && step % EVERY !== 0) continue
    const prompt = messages.map(({ role, content }) => `[${role}]\n${content}`).join('\n\n')
    const of = rollouts.map((one) => [
      step,
      predictor,
      prompt,
      one.completion,
      one.reward,
      one.advantage,
      one.tokens,
      one.truncated,
    ])
    out.set(step, [...(out.get(step) ?? []), ...of])
  }
  return out
}

/** TRL's names, from the record. */
function expected(record: StepRecord): Record<string, number | null> {
  return {
    'train/global_step': record.step,
    'train/loss': record.loss,
    'train/grad_norm': record.grad_norm,
    'train/learning_rate': record.learning_rate,
    'train/reward': record.reward,
    'train/reward_std': record.reward_std,
    'train/frac_reward_zero_std': record.frac_reward_zero_std,
    'train/rewards/metric/mean': record.reward,
    'train/entropy': record.entropy,
    'train/kl': record.kl,
    'train/completions/mean_length': record.completion_length_mean,
    'train/completions/min_length': record.completion_length_min,
    'train/completions/max_length': record.completion_length_max,
    'train/completions/clipped_ratio': record.truncated_share,
    'train/clip_ratio/low_mean': record.clip_ratio_low,
    'train/clip_ratio/high_mean': record.clip_ratio_high,
    'train/clip_ratio/region_mean': record.clip_ratio_region,
    'train/sampling/sampling_logp_difference/mean': record.logprob_gap_mean,
    'train/sampling/sampling_logp_difference/max': record.logprob_gap_max,
    'train/step_time': record.seconds_between + record.seconds_train,
    'eval/score': record.validation_score,
  }
}

const known = (record: StepRecord) => Object.entries(expected(record)).filter((entry) => entry[1] !== null) as [string, number][]
const ofType = <T>(type: string) => read.records.filter((record) => record.type === type).map((record) => record[type] as T)
const historyRows = () => ofType<{ item: Record<string, unknown> }>('history').map(({ item }) => item)

describe('wandb’s own reader', () => {
  it('reads every record of the log, from the header to the exit', () => {
    expect(read.records.map(({ num }) => num)).toEqual(read.records.map((_, i) => i + 1))
    expect(read.records[0]!.type).toBe('header')
    expect(read.records[1]!.type).toBe('run')
    expect(read.records.at(-1)).toMatchObject({ type: 'exit', exit: { runtime: expect.any(Number) } })
    expect(ofType<{ exit_code?: number }>('exit')[0]!.exit_code ?? 0).toBe(0)
  })

  it('finds the number of each step, to the last bit', () => {
    const history = historyRows()
    expect(history).toHaveLength(records.length)
    records.forEach((record, i) => {
      for (const [name, value] of known(record)) expect(history[i]![name], `${name} of step ${record.step}`).toBe(value)
      expect(history[i]).toMatchObject({ _step: record.step, _timestamp: record.time })
    })
    const last = Object.assign({}, ...ofType<{ update: object }>('summary').map(({ update }) => update)) as Record<
      string,
      unknown
    >
    for (const [name, value] of known(records.at(-1)!)) expect(last[name], name).toBe(value)
  })

  it('finds the options, the project and the step that charts are drawn over', () => {
    const [run] = ofType<{ project: string; config: { update: Record<string, unknown> } }>('run')
    expect(run).toMatchObject({ project: 'peers', display_name: records[0]!.job_id })
    expect(run!.config.update).toMatchObject({ learning_rate: 0.02, lora_config: { r: 8 }, environment: { seed: 7 } })
    expect(ofType('metric')).toEqual([
      { name: 'train/global_step', options: { defined: true } },
      { glob_name: '*', options: { defined: true, step_sync: true }, step_metric: 'train/global_step' },
    ])
  })

  it('finds the completions with rewards and advantages in the table of each step that has one', () => {
    const tables = historyRows().filter((row) => row['completions._type'] === 'table-file')
    expect(tables.map((row) => row['_step'])).toEqual([...rows.keys()])
    tables.forEach((row, i) => {
      const file = JSON.parse(readFileSync(join(wandbRun, 'files', String(row['completions.path'])), 'utf8')) as object
      expect(file).toEqual({ columns: COLUMNS, data: [...rows.values()][i] })
      expect(row).toMatchObject({ 'completions.nrows': [...rows.values()][i]!.length, 'completions.ncols': COLUMNS.length })
    })
  })

  it('would have written the table’s artifact the same way', () => {
    const artifacts = ofType<Artifact>('artifact')
    expect(artifacts).toHaveLength(rows.size)
    artifacts.forEach(({ name, digest, manifest }, i) => {
      expect(name).toMatch(/^run-[a-z0-9]{8}-completions$/)
      expect(manifest.contents[0]!.path).toBe(read.table.path)
      expect({ entry: manifest.contents[0]!.digest, artifact: digest }).toEqual(read.digests[i])
    })
    const local = artifacts.at(-1)!.manifest.contents[0]!.local_path
    expect(JSON.parse(readFileSync(local, 'utf8'))).toEqual(read.table.content)
  })
})

describe('wandb sync', () => {
  it('was run when the training had ended, and says that it uploaded the run', () => {
    expect(said.filter((line) => line.startsWith('W&B: '))).toEqual([`W&B: uploaded ${wandbRun}`])
    expect(readdirSync(wandbRun).some((name) => name.endsWith('.wandb.synced'))).toBe(true)
    expect(existsSync('wandb')).toBe(false) // its own logs lie beside the run
    expect(cloud.exit).toEqual({ complete: true, exitcode: 0 })
  })

  it('sent every number, the tables and the summary', () => {
    expect(cloud.history).toHaveLength(records.length)
    records.forEach((record, i) => {
      for (const [name, value] of known(record)) expect(cloud.history[i]![name], name).toBe(value)
    })
    const tables = [...cloud.files.keys()].filter((path) => path.startsWith('media/table/'))
    expect(tables).toHaveLength(rows.size)
    for (const path of tables) expect(cloud.files.get(path)!.equals(readFileSync(join(wandbRun, 'files', path)))).toBe(true)
    expect(cloud.calls.get('CommitArtifact')).toHaveLength(rows.size)
    const summary = JSON.parse(String(cloud.files.get('wandb-summary.json'))) as Record<string, unknown>
    for (const [name, value] of known(records.at(-1)!)) expect(summary[name], name).toBe(value)
    expect(summary).toMatchObject({ _wandb: { runtime: expect.any(Number) } })
    expect(String(cloud.files.get('config.yaml'))).toContain('learning_rate')
  })
})

describe('TensorBoard’s EventAccumulator', () => {
  it('reads the same numbers, in the float32 of its scalars', () => {
    for (const record of records)
      for (const [name, value] of known(record)) {
        if (name === 'train/global_step') continue // TensorBoard has the step beside every number
        const event = read.scalars[name]?.find(([step]) => step === record.step)
        expect(event, `${name} of step ${record.step}`).toEqual([record.step, Math.fround(value), record.time])
      }
    expect(read.scalars['train/loss']).toHaveLength(records.length)
    expect(existsSync(wandbRun)).toBe(true)
  })

  it('reads the options and a table of completions as text', () => {
    const config = read.texts['config/text_summary']![0]!
    expect(config.slice(0, 1)).toEqual([0])
    expect(config[2]).toBe('text')
    expect(JSON.parse(config[1])).toMatchObject({ learning_rate: 0.02 })
    const tables = read.texts['completions/text_summary']!
    expect(tables.map(([step]) => step)).toEqual([...rows.keys()])
    tables.forEach(([, text], i) => {
      const lines = text.split('\n')
      expect(lines[0]).toBe(`| ${COLUMNS.join(' | ')} |`)
      expect(lines).toHaveLength([...rows.values()][i]!.length + 2)
    })
  })
})
