// A run that was cut off goes on from its last checkpoint, also from files that a crash left torn.

import { appendFileSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { FakeEngine } from '../engine/fake-engine'
import type { GRPOStatus } from '../protocol'
import { initialize, sampledGroup, type TestApp, TRAINER_CONFIG, testApp } from './fixture'
import { RunFolder } from './run-folder'

const grpo = (name: string) => `/fine_tuning/grpo/${name}`

async function steps(app: TestApp, job_id: string, questions: readonly string[]): Promise<void> {
  for (const question of questions) {
    const { pending_batch_ids } = await app.call<GRPOStatus>(grpo('status'), { job_id })
    const batch = await sampledGroup(app, job_id, question)
    await app.call(grpo('step'), { job_id, model: job_id, batch_id: pending_batch_ids[0], batch })
  }
  await app.services.jobs.get(job_id).trained()
}

describe('resume_from', () => {
  it('continues step count, checkpoints and log from the last checkpoint', async () => {
    const before = await testApp()
    const { job_id } = await initialize(before)
    await steps(before, job_id, ['a', 'b'])
    await before.call(grpo('checkpoint'), { job_id, checkpoint_name: 'best', metadata: null })
    await steps(before, job_id, ['c'])
    const folder = RunFolder.at(before.storage, job_id)
    appendFileSync(join(folder.path, 'steps.jsonl'), '{"job_id":"torn')
    expect(folder.steps().map((record) => record.step)).toEqual([1, 2, 3])

    const after = await testApp({ storage: before.storage }) // a new server on the same storage
    const resumed = await initialize(after, { resume_from: job_id })
    expect(resumed).toMatchObject({ job_id, status: 'running', last_checkpoint: 'best' })
    await steps(after, job_id, ['c', 'd'])
    await after.call(grpo('terminate'), { job_id })
    const records = RunFolder.at(after.storage, job_id).steps()
    expect(records.map((record) => record.step)).toEqual([1, 2, 3, 4])
    expect(records.map((record) => record.policy_version)).toEqual([1, 2, 3, 4])
    const rollouts = readFileSync(join(folder.path, 'rollouts.jsonl'), 'utf8').trim().split('\n')
    expect(rollouts.map((line) => (JSON.parse(line) as { step: number }).step)).toEqual([1, 2, 3, 4])
  })

  it('goes on after the server ended, from where it was', async () => {
    const before = await testApp()
    const { job_id } = await initialize(before)
    await steps(before, job_id, ['a', 'b', 'c'])
    await before.services.jobs.interrupt()
    const after = await testApp({ storage: before.storage })
    const resumed = await initialize(after, { resume_from: job_id })
    expect(resumed.checkpoints['interrupted']).toMatchObject({ global_step: 3 })
    expect(after.services.jobs.get(job_id).step).toBe(3)
  })

  it('takes over a job that still runs here: saved where it is, and whoever waits for it is told', async () => {
    const app = await testApp()
    const { job_id } = await initialize(app)
    await steps(app, job_id, ['a', 'b'])
    const waiting = app.get(`/fine_tuning/grpo/steps?job_id=${job_id}&after=2`).then((response) => response.text())
    const resumed = await initialize(app, { resume_from: job_id })
    expect(resumed).toMatchObject({ job_id, status: 'running', last_checkpoint: 'interrupted' })
    expect(await waiting).toContain('"status":"cancelled","reason":"resumed by another client"')
    await steps(app, job_id, ['c'])
    expect(
      RunFolder.at(app.storage, job_id)
        .steps()
        .map((record) => record.policy_version),
    ).toEqual([1, 2, 3])
  })

  it('begins again when there was no checkpoint yet', async () => {
    const before = await testApp()
    const { job_id } = await initialize(before)
    await steps(before, job_id, ['a'])
    const after = await testApp({ storage: before.storage })
    expect(await initialize(after, { resume_from: job_id })).toMatchObject({ job_id, last_checkpoint: null })
    expect(RunFolder.at(after.storage, job_id).steps()).toEqual([])
  })

  it('says what is wrong with a run that cannot be resumed', async () => {
    const app = await testApp()
    const { job_id } = await initialize(app)
    const fails = async (body: object) => {
      const response = await app.post(grpo('initialize'), { model: 'mock/tiny', trainer_config: TRAINER_CONFIG, ...body })
      return `${response.status} ${((await response.json()) as { error: { message: string } }).error.message}`
    }
    expect(await fails({ resume_from: 'grpo:tiny:nobody:20260101' })).toMatch(/^400 There is no run/)
    expect(await fails({ resume_from: '../../etc' })).toMatch(/^400 .*not a job id/)
    expect(await fails({ resume_from: '..' })).toMatch(/^400 .*not a job id/)
    await app.call(grpo('terminate'), { job_id })
    const lora_config = { ...TRAINER_CONFIG.lora_config, r: 8 }
    for (const other of [lora_config, null])
      expect(await fails({ resume_from: job_id, trainer_config: { ...TRAINER_CONFIG, lora_config: other } })).toMatch(
        /^400 .*lora_config/,
      )
  })
})

describe('a run folder', () => {
  it('replaces a checkpoint of the same name whole, and finds the old one when a crash came between', async () => {
    const { storage } = await testApp()
    const folder = RunFolder.at(storage, 'grpo:tiny:x:20260101')
    folder.create({ config: {}, environment: {} })
    const save = (text: string, step: number) =>
      folder.saveCheckpoint(
        { checkpoint_name: 'best', global_step: step, requested: true, metadata: null, timestamp: step },
        async (dir) => {
          mkdirSync(dir, { recursive: true })
          writeFileSync(join(dir, 'weights'), text)
        },
      )
    await save('old', 1)
    const { checkpoint_dir } = await save('new', 2)
    expect(readFileSync(join(checkpoint_dir, 'weights'), 'utf8')).toBe('new')
    const failing = folder.saveCheckpoint(
      { checkpoint_name: 'best', global_step: 3, requested: true, metadata: null, timestamp: 3 },
      async () => {
        throw new Error('disk full')
      },
    )
    await expect(failing).rejects.toThrow('disk full')
    expect(folder.checkpoints().map((checkpoint) => checkpoint.global_step)).toEqual([2])
    renameSync(checkpoint_dir, join(checkpoint_dir, '..', '.replaced-best'))
    expect(folder.checkpoints()).toMatchObject([{ checkpoint_name: 'best', global_step: 2 }])
  })
})

describe('a job that saves itself', () => {
  const checkpoints = (app: TestApp, job: string) =>
    RunFolder.at(app.storage, job)
      .checkpoints()
      .map(({ checkpoint_name, global_step, requested, metadata }) => ({ checkpoint_name, global_step, requested, metadata }))

  it('loses what came after, and no more, when its server is killed; what the client noted still holds', async () => {
    const before = await testApp({ autosaveMs: 0 })
    const { job_id } = await initialize(before)
    await steps(before, job_id, ['a'])
    await before.call(grpo('checkpoint'), { job_id, checkpoint_name: 'best', metadata: { score: 80 } })
    await steps(before, job_id, ['b', 'c'])
    expect(checkpoints(before, job_id)).toEqual([
      { checkpoint_name: 'best', global_step: 1, requested: true, metadata: { score: 80 } },
      { checkpoint_name: 'autosave', global_step: 3, requested: false, metadata: { score: 80 } },
    ])

    const after = await testApp({ storage: before.storage })
    const resumed = await initialize(after, { resume_from: job_id })
    expect(resumed.checkpoints['autosave']).toMatchObject({ global_step: 3, metadata: { score: 80 } })
    expect(after.services.jobs.get(job_id).step).toBe(3)
    await after.call(grpo('terminate'), { job_id })
    expect(checkpoints(after, job_id).map(({ checkpoint_name }) => checkpoint_name)).toEqual(['best', 'checkpoint_final'])
  })

  it('does so seldom, and goes on where it cannot', async () => {
    const app = await testApp()
    const { job_id } = await initialize(app)
    await steps(app, job_id, ['a', 'b'])
    expect(checkpoints(app, job_id)).toEqual([])
    const engine = new FakeEngine()
    engine.savePolicy = () => Promise.reject(new Error('no space left on device'))
    const full = await testApp({ engine, autosaveMs: 0 })
    const other = await initialize(full)
    await steps(full, other.job_id, ['a', 'b'])
    expect(await full.call(grpo('status'), { job_id: other.job_id })).toMatchObject({ status: 'running', checkpoints: {} })
    const refused = await full.post(grpo('checkpoint'), { job_id: other.job_id, checkpoint_name: 'best' })
    expect(`${refused.status} ${await refused.text()}`).toMatch(/^500 .*no space left on device/)
    expect(readdirSync(join(RunFolder.at(full.storage, other.job_id).path, 'checkpoints'))).toEqual([])
  })
})
