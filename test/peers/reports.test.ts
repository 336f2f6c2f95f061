// A run that `report_to` recorded, read by the programs that people use: the real wandb and the real TensorBoard, against steps.jsonl and
// rollouts.jsonl. wandb's own command uploads it to a stand-in on the loopback address.

import { existsSync, readdirSync, readFileSync, statSync, truncateSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import type { ServerInfo } from '../../src/optimize'
import { type GRPOStatus, type StepRecord, StepRecordSchema } from '../../src/protocol'
import { initialize, sampledGroup, type TestApp, TRAINER_CONFIG, testApp } from '../../src/server/fixture'
import { compile, freshFolder, ROOT, recordsOnDisk, runFolder, serve, sleep, TRAIN_KWARGS, TRAINSET, whyNot } from '../e2e/tiny'
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
  readonly digests: readonly { readonly entry: string; readonly artifact: string }[]
}

/** A row of numbers, at its global step. */
interface Row {
  readonly step: number
  readonly numbers: Readonly<Record<string, number>>
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
let expectedRows: Row[]
let rows: Map<number, (string | number | boolean)[][]>
let read: Read
let resumed: { read: Read; records: StepRecord[] }
let table: { readonly content: Record<string, unknown>; readonly path: string }
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
  const { compiler } = await compile(server, { trainKwargs, numStepsForVal: 3 }, { valset: TRAINSET.slice(0, 2) })
  const jobId = compiler.run!.jobId
  const folder = runFolder(storagePath, jobId)
  records = recordsOnDisk(storagePath, jobId)
  expectedRows = rowsOf(records, compiler.run!.validation)
  rows = tableRows(folder)
  wandbRun = runPaths(folder).wandb
  for (let left = 600; left > 0 && !said.some((line) => line.startsWith('W&B: ')); left--) await sleep(100)
  const other = await tornAndResumed()
  const asked = { bin: BIN, runs: [runPaths(folder), runPaths(other)], columns: COLUMNS, rows: [...rows.values()].at(-1) }
  const answer = await python<{ runs: [Read, Read]; table: typeof table }>('reports.py', asked)
  read = answer.runs[0]
  resumed = { read: answer.runs[1], records: stepsIn(other) }
  table = answer.table
}, SLOW)
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))
afterAll(async () => {
  await server?.close()
  cloud?.close()
  vi.unstubAllEnvs()
})

function runPaths(folder: string): { wandb: string; tensorboard: string } {
  const name = readdirSync(join(folder, 'wandb')).find((entry) => entry.startsWith('offline-run-'))
  return { wandb: join(folder, 'wandb', name!), tensorboard: join(folder, 'tensorboard') }
}

/** A run of five steps: four, of which the last two are lost with the ends of the files, and three after it was resumed from the second. */
async function tornAndResumed(): Promise<string> {
  vi.stubEnv('WANDB_MODE', 'offline')
  const before = await testApp()
  const trainer_config = { ...TRAINER_CONFIG, report_to: 'all', log_completions: true, logging_steps: 1 }
  const { job_id } = await initialize(before, { trainer_config })
  await train(before, job_id, [40, null])
  await before.call('/fine_tuning/grpo/checkpoint', { job_id, checkpoint_name: 'two', metadata: { score: 50 } })
  await train(before, job_id, [50, null])
  const folder = runFolder(before.storage, job_id)
  const { wandb, tensorboard } = runPaths(folder)
  const files = [
    join(wandb, readdirSync(wandb).find((name) => name.endsWith('.wandb'))!),
    join(tensorboard, readdirSync(tensorboard)[0]!),
  ]
  for (const file of files) truncateSync(file, statSync(file).size - 11)
  const after = await testApp({ storage: before.storage })
  await initialize(after, { trainer_config, resume_from: job_id })
  await train(after, job_id, [50, null, 60])
  await after.call('/fine_tuning/grpo/terminate', { job_id })
  return folder
}

async function train(app: TestApp, job_id: string, scores: readonly (number | null)[]): Promise<void> {
  for (const validation_score of scores) {
    const { pending_batch_ids } = await app.call<GRPOStatus>('/fine_tuning/grpo/status', { job_id })
    const batch = await sampledGroup(app, job_id, `a | b <i>*c*</i>\n${'x'.repeat(1500)}`)
    const body = { job_id, model: job_id, batch_id: pending_batch_ids[0], batch, metrics: { validation_score } }
    await app.call('/fine_tuning/grpo/step', body)
    await app.services.jobs.get(job_id).trained()
  }
}

function stepsIn(folder: string): StepRecord[] {
  const lines = readFileSync(join(folder, 'steps.jsonl'), 'utf8').trim().split('\n')
  return lines.map((line) => StepRecordSchema.parse(JSON.parse(line)))
}

/** The updates, and each validation behind the update that it judges. */
function rowsOf(records: readonly StepRecord[], validation: readonly { step: number; score: number }[]): Row[] {
  const judged = validation.map(({ step, score }) => ({ step, numbers: { 'train/global_step': step, 'eval/score': score } }))
  const trained = records.map((record) => ({ step: record.step, numbers: Object.fromEntries(known(record)) }))
  return [...trained, ...judged].sort((a, b) => a.step - b.step) // keeps the update before its validation
}

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
  }
}

const known = (record: StepRecord) => Object.entries(expected(record)).filter((entry) => entry[1] !== null) as [string, number][]
const ofType = <T>(type: string, from = read) =>
  from.records.filter((record) => record.type === type).map((record) => record[type] as T)
const historyRows = (from = read) => ofType<{ item: Record<string, unknown> }>('history', from).map(({ item }) => item)

function expectRows(found: readonly Record<string, unknown>[], wanted: readonly Row[]): void {
  expect(found.map((row) => row['train/global_step'])).toEqual(wanted.map(({ step }) => step))
  expect(found.map((row) => row['_step'])).toEqual(wanted.map((_, i) => i))
  wanted.forEach(({ numbers }, i) => {
    for (const [name, value] of Object.entries(numbers)) expect(found[i]![name], `${name} of row ${i}`).toBe(value)
  })
}

describe('wandb’s own reader', () => {
  it('reads every record of the log, from the header to the exit', () => {
    expect(read.records.map(({ num }) => num)).toEqual(read.records.map((_, i) => i + 1))
    expect(read.records[0]!.type).toBe('header')
    expect(read.records[1]!.type).toBe('run')
    expect(read.records.at(-1)!.type).toBe('exit')
    const [exit] = ofType<{ exit_code?: number; runtime?: number }>('exit') // their reader leaves zeros out: this run may take half a second
    expect(exit!.exit_code ?? 0).toBe(0)
    expect(exit!.runtime ?? 0).toBeGreaterThanOrEqual(Math.floor(historyRows().at(-1)!['_runtime'] as number))
  })

  it('finds the number of each step, to the last bit', () => {
    expect(expectedRows.map(({ step }) => step)).toEqual([0, 1, 2, 3, 3, 4, 4])
    expectRows(historyRows(), expectedRows)
    const trained = historyRows().filter((row) => 'train/loss' in row)
    expect(trained.map((row) => row['_timestamp'])).toEqual(records.map(({ time }) => time))
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
    expect(tables.map((row) => row['train/global_step'])).toEqual([...rows.keys()])
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
      expect(manifest.contents[0]!.path).toBe(table.path)
      expect({ entry: manifest.contents[0]!.digest, artifact: digest }).toEqual(read.digests[i])
    })
    const local = artifacts.at(-1)!.manifest.contents[0]!.local_path
    expect(JSON.parse(readFileSync(local, 'utf8'))).toEqual(table.content)
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
    expectRows(cloud.history, expectedRows)
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
    const scores = expectedRows.filter(({ numbers }) => 'eval/score' in numbers)
    const judged = scores.map(({ step, numbers }) => [step, Math.fround(numbers['eval/score']!)])
    expect(read.scalars['eval/score']!.map(([step, value]) => [step, value])).toEqual(judged)
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

describe('a run that was torn and resumed', () => {
  it('holds every step and validation once, for both readers', () => {
    const wanted = rowsOf(resumed.records, [
      { step: 0, score: 40 },
      { step: 2, score: 50 },
      { step: 4, score: 60 },
    ])
    expect(wanted.map(({ step }) => step)).toEqual([0, 1, 2, 2, 3, 4, 4, 5])
    expectRows(historyRows(resumed.read), wanted)
    expect(ofType('exit', resumed.read)).toHaveLength(1)
    const { scalars, texts } = resumed.read
    expect(scalars['train/loss']!.map(([step, value]) => [step, value])).toEqual(
      resumed.records.map(({ step, loss }) => [step, Math.fround(loss)]),
    )
    expect(scalars['eval/score']!.map(([step, value]) => [step, value])).toEqual([
      [0, 40],
      [2, 50],
      [4, 60],
    ])
    expect(texts['completions/text_summary']!.map(([step]) => step)).toEqual([1, 2, 3, 4, 5])
    expect(texts['config/text_summary']).toHaveLength(1)
  })

  it('keeps what was asked as text: no row is broken, no markup is left', () => {
    const [, text] = resumed.read.texts['completions/text_summary']![0]!
    expect(text.split('\n')).toHaveLength(2 + 4)
    expect(text).toContain('a \\| b &#60;i&#62;\\*c\\*&#60;/i&#62;<br>xxx')
  })
})
