// report_to: what is asked for is checked before anything is trained; what goes wrong afterwards costs the training nothing.

import { appendFileSync, chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { GRPOStatus, StepRecord } from '../../protocol'
import { initialize, sampledGroup, type TestApp, TRAINER_CONFIG, testApp } from '../fixture'
import { RunFolder } from '../run-folder'
import { reporterNames } from './job-reports'
import { varint } from './protobuf'
import { GrpoSteps, type ReportedStep } from './reported-step'
import { Reports } from './reports'
import { WandbReporter } from './wandb'
import { syncRun } from './wandb-sync'

const grpo = (name: string) => `/fine_tuning/grpo/${name}`
const reporting = (report_to: string | string[], more: object = {}) => ({
  trainer_config: { ...TRAINER_CONFIG, report_to, log_completions: true, logging_steps: 2, ...more },
})

async function steps(app: TestApp, job_id: string, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const { pending_batch_ids } = await app.call<GRPOStatus>(grpo('status'), { job_id })
    const batch = await sampledGroup(app, job_id, `question ${i}`)
    await app.call(grpo('step'), { job_id, model: job_id, batch_id: pending_batch_ids[0], batch })
    await app.services.jobs.get(job_id).trained()
  }
}

const inRun = (app: TestApp, id: string, ...names: string[]) => join(RunFolder.at(app.storage, id).path, ...names)
const status = (app: TestApp, id: string) => JSON.parse(readFileSync(inRun(app, id, 'status.json'), 'utf8')) as { status: string }
const wandbDir = (app: TestApp, id: string) => inRun(app, id, 'wandb', readdirSync(inRun(app, id, 'wandb'))[0]!)
const wandbLog = (app: TestApp, id: string) => {
  const dir = wandbDir(app, id)
  return join(dir, `run-${dir.split('-').at(-1)}.wandb`)
}

beforeEach(() => {
  vi.stubEnv('WANDB_MODE', 'offline')
})
afterEach(() => {
  vi.unstubAllEnvs()
})

describe('report_to', () => {
  it('names places, alone or in a list', () => {
    expect(reporterNames('none')).toEqual([])
    expect(reporterNames([])).toEqual([])
    expect(reporterNames('wandb')).toEqual(['wandb'])
    expect(reporterNames(['tensorboard', 'wandb'])).toEqual(['wandb', 'tensorboard'])
    expect(reporterNames('all')).toEqual(['wandb', 'tensorboard'])
  })

  it('is refused before a job is made, with the nearest name', async () => {
    const app = await testApp()
    const response = await app.post(grpo('initialize'), { model: 'mock/tiny', ...reporting('wandbb') })
    expect(response.status).toBe(400)
    expect(await response.text()).toContain('Did you mean \\"wandb\\"?')
    expect(() => reporterNames(['wandb', 'mlflow'])).toThrow(/"mlflow".*wandb and tensorboard/)
    expect(existsSync(join(app.storage, 'runs'))).toBe(false)
  })

  it('none leaves the run with its own files alone', async () => {
    const app = await testApp()
    const { job_id } = await initialize(app, reporting('none'))
    await steps(app, job_id, 1)
    expect(status(app, job_id).status).toBe('running')
    await app.call(grpo('terminate'), { job_id })
    const names = ['checkpoints', 'config.json', 'environment.json', 'rollouts.jsonl', 'status.json', 'steps.jsonl']
    expect(readdirSync(inRun(app, job_id)).sort()).toEqual(names)
    expect(status(app, job_id).status).toBe('succeeded')
  })
})

describe('a report that fails', () => {
  it('is told once, in the record and the log, and the training goes on', async () => {
    const app = await testApp()
    const { job_id } = await initialize(app, reporting(['wandb', 'tensorboard']))
    await steps(app, job_id, 1)
    rmSync(inRun(app, job_id, 'wandb'), { recursive: true })
    writeFileSync(inRun(app, job_id, 'wandb'), 'in the way')
    await steps(app, job_id, 2)
    await app.call(grpo('terminate'), { job_id })
    const records = RunFolder.at(app.storage, job_id).steps()
    const warnings = records.map((record) => record.notes.filter((note) => note.includes('Reporting to wandb failed')).length)
    expect(warnings).toEqual([0, 1, 0])
    expect(status(app, job_id).status).toBe('succeeded')
    const [events] = readdirSync(inRun(app, job_id, 'tensorboard'))
    const scalarEvents = readFileSync(inRun(app, job_id, 'tensorboard', events!))
      .toString('latin1')
      .split('train/reward_std')
    expect(scalarEvents).toHaveLength(4) // three steps
  })
})

describe('a resumed run', () => {
  it('keeps its W&B id and holds every step once, the end of the first part left out', async () => {
    const before = await testApp()
    const { job_id } = await initialize(before, reporting('all'))
    await steps(before, job_id, 2)
    await before.call(grpo('checkpoint'), { job_id, checkpoint_name: 'two', metadata: null })
    const atTwo = readFileSync(wandbLog(before, job_id))
    await steps(before, job_id, 1)
    const path = wandbLog(before, job_id)
    appendFileSync(path, 'torn by a crash')
    writeFileSync(`${path}.synced`, '')

    const after = await testApp({ storage: before.storage })
    await initialize(after, { ...reporting('all'), resume_from: job_id })
    expect(wandbLog(after, job_id)).toBe(path)
    expect(existsSync(`${path}.synced`)).toBe(false)
    expect(readFileSync(path).equals(atTwo)).toBe(true)
    await steps(after, job_id, 1)
    expect(readFileSync(path).length).toBeGreaterThan(atTwo.length)
    expect(readdirSync(inRun(after, job_id, 'tensorboard'))).toHaveLength(1)
  })

  it('goes on behind what W&B has already, in a log of its own under the same id', async () => {
    const before = await testApp()
    const { job_id } = await initialize(before, reporting('wandb'))
    await steps(before, job_id, 3)
    await before.services.jobs.interrupt()
    const first = wandbLog(before, job_id)
    const bytes = readFileSync(first)
    writeFileSync(`${first}.synced`, '')
    writeFileSync(join(wandbDir(before, job_id), 'files', 'wandb-summary.json'), JSON.stringify({ _step: 2 }))
    vi.setSystemTime(Date.now() + 2000) // the folders are named by the second
    const after = await testApp({ storage: before.storage })
    await initialize(after, { ...reporting('wandb'), resume_from: job_id })
    await steps(after, job_id, 1)
    vi.useRealTimers()
    const [old, fresh] = readdirSync(inRun(after, job_id, 'wandb')).sort()
    expect(fresh!.split('-').at(-1)).toBe(old!.split('-').at(-1))
    expect(readFileSync(first).equals(bytes)).toBe(true)
    const log = readFileSync(inRun(after, job_id, 'wandb', fresh!, first.split('/').at(-1)!))
    expect(log.includes(varint(14, 3))).toBe(true) // starting_step
    expect(log.toString('latin1').split('"table-file"')).toHaveLength(1 + 2) // of step 4 alone
  })

  it('that is reported for the first time brings its earlier steps along', async () => {
    const before = await testApp()
    const { job_id } = await initialize(before, reporting('none'))
    await steps(before, job_id, 2)
    await before.services.jobs.interrupt()
    expect(status(before, job_id).status).toBe('interrupted')
    const after = await testApp({ storage: before.storage })
    await initialize(after, { ...reporting('all'), resume_from: job_id })
    const log = readFileSync(wandbLog(after, job_id)).toString('latin1')
    expect(log.split('"table-file"')).toHaveLength(1 + 2 * 2) // two tables, each in summary and history
    const [events] = readdirSync(inRun(after, job_id, 'tensorboard'))
    expect(
      readFileSync(inRun(after, job_id, 'tensorboard', events!))
        .toString('latin1')
        .split('train/kl'),
    ).toHaveLength(1)
    expect(
      readFileSync(inRun(after, job_id, 'tensorboard', events!))
        .toString('latin1')
        .split('train/loss'),
    ).toHaveLength(3)
  })
})

describe('the upload', () => {
  it('says why there is none and how to make it', () => {
    const said: string[] = []
    const say = (line: string) => said.push(line)
    const PATH = mkdtempSync(join(tmpdir(), 'arbor-path-'))
    expect(syncRun('/run', 'abc', { say, env: { PATH, WANDB_API_KEY: 'k' } })).toBeUndefined()
    writeFileSync(join(PATH, 'wandb'), '#!/bin/sh\nexit 0\n')
    chmodSync(join(PATH, 'wandb'), 0o755)
    expect(syncRun('/run', 'abc', { say, env: { PATH, HOME: PATH } })).toBeUndefined()
    expect(syncRun('/run', 'abc', { say, env: { PATH, WANDB_API_KEY: 'k', WANDB_MODE: 'offline' } })).toBeUndefined()
    expect(said.map((line) => line.split('. ')[0])).toEqual([
      "W&B: wandb's client is not installed here (pip install wandb)",
      'W&B: no key is known (wandb login, or WANDB_API_KEY)',
      'W&B: WANDB_MODE is offline',
    ])
    expect(said.every((line) => line.endsWith('wandb sync /run'))).toBe(true)
  })

  it('counts as done when the mark is there, not when the program ended well', async () => {
    const PATH = mkdtempSync(join(tmpdir(), 'arbor-path-'))
    const said: string[] = []
    const env = { PATH: `${PATH}:/bin:/usr/bin`, HOME: PATH, WANDB_API_KEY: 'k' }
    const program = (text: string) => {
      writeFileSync(join(PATH, 'wandb'), `#!/bin/sh\n${text}\n`)
      chmodSync(join(PATH, 'wandb'), 0o755)
    }
    program('echo "no such project"')
    await syncRun(PATH, 'abc', { say: (line) => said.push(line), env })
    program('[ "$1" = sync ] && touch "$2/run-abc.wandb.synced"')
    writeFileSync(join(PATH, '.netrc'), 'machine api.wandb.ai\n  login user\n  password k\n')
    await syncRun(PATH, 'abc', { say: (line) => said.push(line), env: { ...env, WANDB_API_KEY: '' } })
    expect(said).toEqual([`W&B: not uploaded (no such project). Try again with: wandb sync ${PATH}`, `W&B: uploaded ${PATH}`])
  })
})

describe('a server that ends during an upload', () => {
  it('waits for a while, then cuts it off and says how to go on', async () => {
    const PATH = mkdtempSync(join(tmpdir(), 'arbor-path-'))
    writeFileSync(join(PATH, 'wandb'), '#!/bin/sh\nexec sleep 60\n')
    chmodSync(join(PATH, 'wandb'), 0o755)
    vi.stubEnv('PATH', `${PATH}:/bin:/usr/bin`)
    vi.stubEnv('WANDB_MODE', '')
    vi.stubEnv('WANDB_API_KEY', 'k')
    const said: string[] = []
    const run = { id: 'x', folder: mkdtempSync(join(tmpdir(), 'arbor-run-')), started: 1, config: {}, completionsEvery: null }
    const reports = new Reports({ reporters: { wandb: new WandbReporter((line) => said.push(line)) }, run, say: () => {} })
    reports.end('succeeded', null)
    await reports.finished(100)
    expect(said).toEqual([expect.stringMatching(/^W&B: not uploaded \(.*abort.*\)\. Try again with: wandb sync /)])
  })
})

describe('a resumed run whose rollouts cannot be read', () => {
  it('goes on without the reports that would need them', async () => {
    const before = await testApp()
    const { job_id } = await initialize(before, reporting('none'))
    await steps(before, job_id, 1)
    await before.services.jobs.interrupt()
    const after = await testApp({ storage: before.storage })
    const path = inRun(before, job_id, 'rollouts.jsonl')
    writeFileSync(path, '{"step":1}\n')
    await initialize(after, { ...reporting('wandb'), resume_from: job_id })
    await steps(after, job_id, 1)
    const [first, second] = RunFolder.at(after.storage, job_id).steps()
    expect(first!.notes.join()).not.toContain('Reporting')
    expect(second!.notes.join()).toContain('Reporting to wandb failed')
  })
})

describe('the names of the numbers', () => {
  const record = {
    step: 3,
    time: 100,
    reward: 0.5,
    kl: null,
    clip_ratio_high: 0.25,
    tokens_unshared: 10,
    validation_score: 0,
    groups: [{ lengths: [2, 4], truncated: [false, true] }],
  } as unknown as StepRecord

  it('leave out what there is nothing of, and keep zeros', () => {
    const [validation, { metrics }] = new GrpoSteps('dapo').reported(record, []) as [ReportedStep, ReportedStep]
    expect(validation).toMatchObject({ step: 2, metrics: { 'eval/score': 0 } })
    expect(metrics).not.toHaveProperty('train/kl')
    expect(metrics).toMatchObject({ 'train/completions/max_terminated_length': 2, 'train/num_tokens': 10 })
  })

  it('are cispo’s own where the loss is', () => {
    const { metrics } = new GrpoSteps('cispo').reported(record, []).at(-1)!
    expect(metrics['train/cispo_clip_ratio']).toBe(0.25)
    expect(metrics).not.toHaveProperty('train/clip_ratio/high_mean')
  })

  it('tell several reward functions apart', () => {
    const rollouts = [[1, null] as const, [0, 0.5] as const].map((rewards) => ({ rewards, reward: 1 }))
    const lines = [{ step: 3, messages: [], rollouts }] as never
    const { metrics } = new GrpoSteps('dapo').reported(record, lines).at(-1)!
    expect(metrics).toMatchObject({ 'train/rewards/reward_0/mean': 0.5, 'train/rewards/reward_1/mean': 0.5 })
    expect(metrics['train/rewards/reward_1/std']).toBe(0)
  })
})
