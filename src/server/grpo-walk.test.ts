// A job from initialize to its end, through the app and the fake engine.

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type GRPOStatus, GRPOStatusSchema, type StepRecord, StepRecordSchema } from '../protocol'
import { FaultyEngine, initialize, MODEL, sampledGroup, type TestApp, TRAINER_CONFIG, testApp } from './fixture'

const grpo = (name: string) => `/v1/fine_tuning/grpo/${name}`

function storedRecords(app: TestApp, job: string): StepRecord[] {
  const text = readFileSync(join(app.storage, 'runs', job.replaceAll(':', '+'), 'steps.jsonl'), 'utf8')
  return text
    .trim()
    .split('\n')
    .map((line) => StepRecordSchema.parse(JSON.parse(line)))
}

describe('a GRPO job', () => {
  it('goes from initialize over a step and a checkpoint to terminate, and goes on answering', async () => {
    const app = await testApp()
    const first = await initialize(app, { run_name: 'walk', model: `openai/arbor:${MODEL}` })
    expect(GRPOStatusSchema.parse(first)).toEqual(first)
    expect(first).toMatchObject({
      status: 'running',
      current_model: first.job_id,
      pending_batch_ids: [0, 1],
      last_checkpoint: null,
    })
    expect(first.job_id).toMatch(/^grpo:tiny:walk:\d{8}$/)
    const job = { job_id: first.job_id }
    const batch = await sampledGroup(app, `arbor:${first.job_id}`, 'What is 2+2?')
    const metrics = { validation_score: 50, format_failures: 1 }
    const posted = await app.call<GRPOStatus>(grpo('step'), { ...job, model: first.job_id, batch_id: 0, batch, metrics })
    expect(posted.pending_batch_ids).toEqual([1, 2])
    const saved = await app.call<GRPOStatus>(grpo('checkpoint'), {
      ...job,
      checkpoint_name: 'model_checkpoint_best',
      metadata: { score: 50 },
    })
    const checkpoint = saved.checkpoints[saved.last_checkpoint!]!
    expect(checkpoint).toMatchObject({
      checkpoint_name: 'model_checkpoint_best',
      global_step: 1,
      requested: true,
      metadata: { score: 50 },
    })
    expect(existsSync(join(checkpoint.checkpoint_dir, 'checkpoint.json'))).toBe(true)
    const done = await app.call<GRPOStatus>(grpo('terminate'), job)
    expect(done).toMatchObject({ status: 'succeeded', pending_batch_ids: [], last_checkpoint: 'checkpoint_final' })
    expect(await app.call(grpo('terminate'), job)).toEqual(done)
    expect(await app.call(grpo('status'), job)).toEqual(done)
    await sampledGroup(app, first.job_id, 'still there?')
    expect((await app.post(grpo('step'), { ...job, model: first.job_id, batch_id: 1, batch })).status).toBe(400)
  })

  it('records what a step did, with the very tokens that were sampled', async () => {
    const app = await testApp()
    const { job_id } = await initialize(app)
    const batch = await sampledGroup(app, job_id, 'What is 2+2?')
    await app.call(grpo('step'), { job_id, model: job_id, batch_id: 0, batch })
    await app.call(grpo('terminate'), { job_id })
    const [record] = storedRecords(app, job_id)
    expect(record).toMatchObject({
      step: 1,
      policy_version: 1,
      reward: 0.5,
      reward_min: 0,
      reward_max: 1,
      rows_trained: 4,
      rows_total: 4,
      learning_rate: 1e-3,
      kl: null,
    })
    expect(record!.reward_std).toBeCloseTo(0.57735, 4)
    expect(record!.logprob_gap_max!).toBeLessThan(1e-6)
    expect(record!.groups[0]).toMatchObject({ title: 'What is 2+2?', sources: ['id', 'id', 'id', 'id'], rewards: [1, 0, 1, 0] })
    expect(record!.notes).toEqual([])
  })

  it('trains a list of groups as one update with groups_per_step, one by one without', async () => {
    const app = await testApp()
    for (const [groups_per_step, versions, ids] of [
      [2, [1], 1],
      [null, [1, 2], 2],
    ] as const) {
      const { job_id, pending_batch_ids } = await initialize(app, { trainer_config: { ...TRAINER_CONFIG, groups_per_step } })
      expect(pending_batch_ids).toHaveLength(ids)
      const batch = [await sampledGroup(app, job_id, 'one'), await sampledGroup(app, job_id, 'three', 3)]
      const groups = [1, 2].map((n) => ({ predictor: 'answer', example: n, title: `question ${n}` }))
      await app.call(grpo('step'), { job_id, model: job_id, batch_id: pending_batch_ids[0], batch, groups })
      await app.call(grpo('terminate'), { job_id })
      const records = storedRecords(app, job_id)
      expect(records.map((record) => record.policy_version)).toEqual(versions)
      expect(records.flatMap((record) => record.groups.map((group) => group.title))).toEqual(['question 1', 'question 2'])
    }
  })

  it('offers ids that no job of the process had before, and answers a repeated post without training it again', async () => {
    const app = await testApp()
    const first = await initialize(app)
    const second = await initialize(app)
    expect(new Set([...first.pending_batch_ids, ...second.pending_batch_ids]).size).toBe(4)
    const { job_id } = second
    const step = { job_id, model: job_id, batch_id: second.pending_batch_ids[0], batch: await sampledGroup(app, job_id, 'again') }
    await app.call(grpo('step'), step)
    await app.call(grpo('step'), step)
    const { pending_batch_ids } = await app.call<GRPOStatus>(grpo('terminate'), { job_id })
    expect(pending_batch_ids).toEqual([])
    expect(storedRecords(app, job_id)).toHaveLength(1)
  })

  it('waits for as many groups as were rolled out since the client last asked', async () => {
    const app = await testApp()
    const { job_id } = await initialize(app)
    const pending = async () => (await app.call<GRPOStatus>(grpo('status'), { job_id })).pending_batch_ids
    expect(await pending()).toEqual([0, 1])
    const groups = [
      await sampledGroup(app, job_id, 'one'),
      await sampledGroup(app, job_id, 'two'),
      await sampledGroup(app, job_id, 'three'),
    ]
    const ids = await pending()
    expect(ids).toEqual([0, 1, 2])
    for (const [i, batch] of groups.entries()) await app.call(grpo('step'), { job_id, model: job_id, batch_id: ids[i], batch })
    await app.call(grpo('terminate'), { job_id })
    expect(storedRecords(app, job_id).map((record) => record.groups[0]!.title)).toEqual(['one', 'two', 'three'])
  })

  it('samples from the weights of all steps posted before', async () => {
    const app = await testApp()
    const { job_id } = await initialize(app)
    const batch = await sampledGroup(app, job_id, 'first')
    await app.call(grpo('step'), { job_id, model: job_id, batch_id: 0, batch })
    const [sample] = await sampledGroup(app, job_id, 'second')
    expect(app.services.completions.get(sample!.completion_id)!.policyVersion).toBe(1)
  })

  it('gives jobs of one run name ids of their own', async () => {
    const app = await testApp()
    const ids = await Promise.all([1, 2, 3].map(async () => (await initialize(app, { run_name: 'same' })).job_id))
    expect(new Set(ids).size).toBe(3)
  })

  it('tells that it failed, and why, instead of letting a client poll for ever', async () => {
    const app = await testApp({ engine: new FaultyEngine() })
    const { job_id } = await initialize(app)
    const batch = await sampledGroup(app, job_id, 'boom')
    await app.call(grpo('step'), { job_id, model: job_id, batch_id: 0, batch })
    await app.services.jobs.get(job_id).trained()
    const response = await app.post(grpo('status'), { job_id })
    expect(response.status).toBe(409)
    const body = (await response.json()) as GRPOStatus & { error: { message: string; code: string } }
    expect(body).toMatchObject({
      job_id,
      status: 'failed',
      current_model: job_id,
      pending_batch_ids: [],
      checkpoints: {},
      last_checkpoint: null,
    })
    expect(body.error).toMatchObject({ code: 'job_failed', message: expect.stringContaining('the device is gone') })
    expect((await app.post(grpo('checkpoint'), { job_id, checkpoint_name: 'x' })).status).toBe(409)
    expect((await app.post(grpo('terminate'), { job_id })).status).toBe(409)
  })

  it('is cancelled once; its name is gone then', async () => {
    const app = await testApp()
    const { job_id } = await initialize(app)
    expect(await app.call(grpo('cancel'), { job_id })).toMatchObject({ status: 'cancelled', pending_batch_ids: [] })
    expect((await app.post(grpo('cancel'), { job_id })).status).toBe(404)
    expect((await app.post(grpo('cancel'), { job_id: 'grpo:nobody' })).status).toBe(404)
    expect((await app.post(grpo('status'), { job_id })).status).toBe(409)
    expect((await app.post('/v1/chat/completions', { model: job_id, messages: [{ role: 'user', content: 'x' }] })).status).toBe(
      404,
    )
  })
})

describe('the stream of step records', () => {
  it('sends what there is, then each record as it comes, then the end', async () => {
    const app = await testApp()
    const { job_id } = await initialize(app)
    const post = async (batch_id: number) =>
      app.call(grpo('step'), { job_id, model: job_id, batch_id, batch: await sampledGroup(app, job_id, `question ${batch_id}`) })
    await post(0)
    await app.services.jobs.get(job_id).trained()
    const response = await app.get(`${grpo('steps')}?job_id=${encodeURIComponent(job_id)}&after=0`)
    expect(response.headers.get('content-type')).toContain('text/event-stream')
    const text = response.text()
    await post(1)
    await app.call(grpo('terminate'), { job_id })
    const events = (await text)
      .trim()
      .split('\n\n')
      .map((event) => event.split('\n').map((line) => line.replace(/^\w+: /, '')))
    expect(events.map((event) => event[0])).toEqual(['step', 'step', 'end'])
    expect(events.slice(0, 2).map((event) => StepRecordSchema.parse(JSON.parse(event[2]!)).step)).toEqual([1, 2])
    expect(JSON.parse(events[2]![1]!)).toEqual({ status: 'succeeded', reason: null })
    const later = await (await app.get(`${grpo('steps')}?job_id=${job_id}&after=1`)).text()
    expect(later.match(/^event: step$/gm)).toHaveLength(1)
    expect((await app.get(`${grpo('steps')}?job_id=${job_id}&after=x`)).status).toBe(400)
    expect((await app.get(`${grpo('steps')}?job_id=none`)).status).toBe(400)
  })
})
