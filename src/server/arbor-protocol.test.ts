// The corners of Arbor's protocol that its clients rely on, where no other test goes.

import { describe, expect, it } from 'vitest'
import { FakeEngine } from '../engine/fake-engine'
import type { FileObject, FineTuningJobObject, GRPOStatus } from '../protocol'
import { FaultyEngine, initialize, MODEL, sampledGroup, type TestApp, TRAINER_CONFIG, testApp } from './fixture'

const grpo = (name: string) => `/v1/fine_tuning/grpo/${name}`
const message = async (response: Response) => ((await response.json()) as { error: { message: string } }).error.message
const step = async (app: TestApp, job_id: string, batch_id: number, question: string) =>
  app.post(grpo('step'), { job_id, model: job_id, batch_id, batch: await sampledGroup(app, job_id, question) })

async function fineTuning(app: TestApp, hyperparameters: object): Promise<FineTuningJobObject> {
  const form = new FormData()
  form.set('purpose', 'fine-tune')
  const messages = [
    { role: 'user', content: 'q' },
    { role: 'assistant', content: 'a' },
  ]
  form.set('file', new File([JSON.stringify({ messages })], 'data.jsonl'))
  const uploaded = await app.fetch(new Request('http://localhost/v1/files', { method: 'POST', body: form }))
  const { id: training_file } = (await uploaded.json()) as FileObject
  return app.call('/v1/fine_tuning/jobs', { model: MODEL, training_file, hyperparameters })
}

describe('paths', () => {
  it('are the same under /v1, at the root, with doubled slashes, and where openai lost the slash behind /v1', async () => {
    const app = await testApp()
    const { job_id: id } = await initialize(app)
    for (const base of ['/v1/', '/', '/v1//', '//v1/', '/v1'])
      for (const path of ['models', 'files', `fine_tuning/jobs/${id}`, `fine_tuning/jobs/${encodeURIComponent(id)}/events`])
        expect([base + path, (await app.get(base === '/' ? `/${path}` : base + path)).status]).toEqual([base + path, 200])
    for (const path of ['/v2/models', '/v1x', '/v1modelsx']) expect((await app.get(path)).status, path).toBe(404)
  })

  it('of models take a slash as it is and escaped, and job ids', async () => {
    const app = await testApp()
    const { job_id } = await initialize(app)
    for (const id of [MODEL, encodeURIComponent(MODEL), `openai/arbor:${MODEL}`, job_id, encodeURIComponent(job_id)])
      expect([id, (await app.get(`/v1/models/${id}`)).status]).toEqual([id, 200])
    expect((await app.get('/v1/models/nobody%2Fknows')).status).toBe(404)
  })
})

describe('the samples of a step', () => {
  it('are trained the same where they leave out the messages of those before them; a first one must have some', async () => {
    const engine = new FakeEngine()
    const app = await testApp({ engine })
    const { job_id } = await initialize(app)
    const group = await sampledGroup(app, job_id, 'q')
    const [first, ...others] = group
    const short = [first, ...others.map(({ messages: _, ...rest }) => rest)]
    const post = (batch_id: number, batch: unknown) => app.post(grpo('step'), { job_id, model: job_id, batch_id, batch })
    expect((await post(0, group)).status).toBe(200)
    expect((await post(0, short)).status).toBe(200) // known again
    expect((await post(1, [...short.slice(1), first])).status).toBe(422)
    await app.services.jobs.get(job_id).trained()
    expect(engine.calls.filter(({ method }) => method === 'trainStep')).toHaveLength(1)

    const again = await testApp({ engine: new FakeEngine() })
    const { job_id: other } = await initialize(again)
    const whole = await sampledGroup(again, other, 'q')
    const left = whole.map(({ messages, ...rest }, i) => (i === 0 ? { messages, ...rest } : rest))
    await again.call(grpo('step'), { job_id: other, model: other, batch_id: 0, batch: left })
    await again.services.jobs.get(other).trained()
    const trained = (one: TestApp) =>
      (one.services.engine as FakeEngine).calls.flatMap((call) => (call.method === 'trainStep' ? [call.sequences] : []))
    expect(trained(again).flat()).toHaveLength(group.length)
    expect(
      trained(again)
        .flat()
        .map(({ prompt }) => prompt),
    ).toEqual(
      trained(app)
        .flat()
        .map(({ prompt }) => prompt),
    )
  })
})

describe('the list of jobs', () => {
  it('holds both kinds, the newest first, page by page', async () => {
    const app = await testApp()
    const { job_id } = await initialize(app)
    const { id } = await fineTuning(app, {})
    await app.services.fineTuning.idle()
    const page = async (query: string) =>
      (await (await app.get(`/v1/fine_tuning/jobs${query}`)).json()) as {
        data: { id: string }[]
        has_more: boolean
        last_id: string
      }
    const whole = (await page('')).data.map((job) => job.id)
    expect(whole.sort()).toEqual([id, job_id].sort())
    const first = await page('?limit=1')
    expect(first).toMatchObject({ has_more: true, data: [{ id: first.last_id }] })
    const second = await page(`?limit=1&after=${encodeURIComponent(first.last_id)}`)
    expect(second.has_more).toBe(false)
    expect([first.last_id, second.last_id].sort()).toEqual(whole)
    expect((await app.get('/v1/fine_tuning/jobs?limit=many')).status).toBe(400)
  })
})

describe('initialize', () => {
  it('takes a split of GPUs, precision and checkpointing for wishes', async () => {
    const app = await testApp()
    const multi = { num_inference_gpus: 3, num_training_gpus: 5 }
    const trainer_config = {
      ...TRAINER_CONFIG,
      num_training_gpus: 5,
      bf16: true,
      gradient_checkpointing: true,
      report_to: 'none',
    }
    const { status } = await initialize(app, { trainer_config, gpu_config: { type: 'multi', multi } })
    expect(status).toBe('running')
  })

  it('needs no length, and no divisibility', async () => {
    const app = await testApp()
    const lengths = { max_seq_len: null, max_prompt_length: null, max_completion_length: null }
    const odd = { num_generations: 5, per_device_train_batch_size: 3, gradient_accumulation_steps: 7 }
    const { job_id } = await initialize(app, { trainer_config: { ...TRAINER_CONFIG, ...lengths, ...odd } })
    const batch = await sampledGroup(app, job_id, 'five', 5)
    await app.call(grpo('step'), { job_id, model: job_id, batch_id: 0, batch })
    await app.call(grpo('terminate'), { job_id })
    expect(app.services.jobs.get(job_id).records[0]).toMatchObject({ rows_total: 5, rows_trained: 5 })
  })
})

describe('a step', () => {
  it('is trained beyond max_steps, which is the length of the schedule only', async () => {
    const app = await testApp()
    const trainer_config = { ...TRAINER_CONFIG, lr_scheduler_type: 'linear', max_steps: 2 }
    const { job_id } = await initialize(app, { trainer_config })
    for (const batch_id of [0, 1, 2]) expect((await step(app, job_id, batch_id, `question ${batch_id}`)).status).toBe(200)
    const { pending_batch_ids } = await app.call<GRPOStatus>(grpo('status'), { job_id })
    expect(pending_batch_ids.length).toBeGreaterThan(0)
    await app.services.jobs.get(job_id).trained()
    expect(app.services.jobs.get(job_id).records.map((record) => record.learning_rate)).toEqual([1e-3, 5e-4, 0])
  })

  it('of each of two clients that saw the same id is trained, in the order in which they came', async () => {
    const app = await testApp()
    const { job_id } = await initialize(app)
    const [first, second] = [await sampledGroup(app, job_id, 'first'), await sampledGroup(app, job_id, 'second')]
    const post = (batch: object) => app.call<GRPOStatus>(grpo('step'), { job_id, model: job_id, batch_id: 0, batch })
    const answers = await Promise.all([post(first), post(second)])
    for (const { pending_batch_ids } of answers) expect(pending_batch_ids).not.toContain(0)
    await app.services.jobs.get(job_id).trained()
    expect(app.services.jobs.get(job_id).records.map((record) => record.groups[0]!.title)).toEqual(['first', 'second'])
  })

  it('of a client that did not hear that another ended the job is an error with words', async () => {
    const app = await testApp()
    const { job_id } = await initialize(app)
    await app.call(grpo('terminate'), { job_id })
    const late = await step(app, job_id, 0, 'late')
    expect(`${late.status} ${await message(late)}`).toMatch(/^400 Job \S+ has ended \(succeeded\)/)
  })
})

describe('a job that failed in the middle of its steps', () => {
  it('drops those behind it, tells everybody, and answers chat with the weights that it had', async () => {
    const app = await testApp({ engine: new FaultyEngine() })
    const { job_id } = await initialize(app)
    const groups = await Promise.all(['one', 'two', 'three'].map((question) => sampledGroup(app, job_id, question)))
    const told = app.get(`${grpo('steps')}?job_id=${job_id}`).then((response) => response.text())
    for (const [batch_id, batch] of groups.entries()) await app.post(grpo('step'), { job_id, model: job_id, batch_id, batch })
    expect(await told).toContain('"status":"failed","reason":"step 1: the device is gone"')
    for (const path of [grpo('status'), grpo('terminate')]) {
      const response = await app.post(path, { job_id })
      expect(`${response.status} ${await message(response)}`).toBe(`409 Job ${job_id} failed: step 1: the device is gone`)
    }
    expect(app.services.jobs.get(job_id).records).toEqual([])
    await sampledGroup(app, job_id, 'still there?')
  })
})

describe('what is cancelled', () => {
  it('a fine-tuning job says that it will end, until its update is done', async () => {
    const app = await testApp()
    const { id } = await fineTuning(app, { n_epochs: 1000 })
    while (app.services.fineTuning.find(id)!.steps.length === 0) await new Promise((turn) => setImmediate(turn))
    expect(await app.call(`/v1/fine_tuning/jobs/${id}/cancel`, {})).toMatchObject({ status: 'pending_cancel', finished_at: null })
    await app.services.fineTuning.idle()
    const ended = (await (await app.get(`/v1/fine_tuning/jobs/${id}`)).json()) as FineTuningJobObject
    expect(ended).toMatchObject({ status: 'cancelled', error: { message: 'cancelled by a client' } })
  })

  it('a GRPO job leaves no chat hanging that waited for its steps', async () => {
    const engine = new FakeEngine()
    const app = await testApp({ engine })
    const { job_id } = await initialize(app)
    const batch = await sampledGroup(app, job_id, 'one')
    const posted = app.call(grpo('step'), { job_id, model: job_id, batch_id: 0, batch })
    const chat = app.post('/v1/chat/completions', { model: job_id, messages: [{ role: 'user', content: 'x' }] })
    const cancelled = app.call(grpo('cancel'), { job_id })
    expect([200, 404]).toContain((await chat).status) // before or after, never 500
    await Promise.all([posted, cancelled])
    expect((await engine.status()).policies).toEqual([])
  })
})
