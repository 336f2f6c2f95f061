// Files and fine-tuning jobs through the routes, over the fake engine.

import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { FakeEngine } from '../engine/fake-engine'
import type { FileObject, FineTuningEvent, FineTuningJobObject, GrpoEvent } from '../protocol'
import { byteCodec, FaultyEngine, initialize, MODEL, sampledGroup, type TestApp, TRAINER_CONFIG, testApp } from './fixture'

const line = (question: string, answer: string) =>
  JSON.stringify({
    messages: [
      { role: 'system', content: 'Answer.' },
      { role: 'user', content: question },
      { role: 'assistant', content: answer },
    ],
  })
const LINES = [line('one', '1'), line('two', '22'), line('three', '333')].join('\n')

async function upload(app: TestApp, text: string, filename = 'data.jsonl', purpose = 'fine-tune'): Promise<Response> {
  const form = new FormData()
  form.set('purpose', purpose)
  form.set('file', new File([text], filename))
  return app.fetch(new Request('http://localhost/v1/files', { method: 'POST', body: form }))
}

async function uploaded(app: TestApp, text = LINES): Promise<string> {
  return ((await (await upload(app, text)).json()) as FileObject).id
}

const create = async (app: TestApp, hyperparameters: object = {}, body: object = {}) =>
  app.call<FineTuningJobObject>('/v1/fine_tuning/jobs', {
    model: MODEL,
    training_file: await uploaded(app),
    hyperparameters,
    ...body,
  })
const json = async <T>(app: TestApp, path: string) => (await (await app.get(path)).json()) as T
const message = async (response: Response) => ((await response.json()) as { error: { message: string } }).error.message

/** A job from its creation to its end. */
async function trained(app: TestApp, hyperparameters: object = {}): Promise<FineTuningJobObject> {
  const { id } = await create(app, hyperparameters)
  await app.services.fineTuning.idle()
  return json(app, `/v1/fine_tuning/jobs/${id}`)
}

describe('files', () => {
  it('are kept, listed, read and deleted', async () => {
    const app = await testApp()
    const file = (await (await upload(app, LINES)).json()) as FileObject
    expect(file).toMatchObject({ object: 'file', filename: 'data.jsonl', purpose: 'fine-tune', bytes: LINES.length })
    const again = await testApp({ storage: app.storage })
    expect(await json(again, `/v1/files/${file.id}`)).toEqual(file)
    expect((await json<{ data: FileObject[] }>(again, '/v1/files')).data).toEqual([file])
    const deleted = await app.fetch(new Request(`http://localhost/v1/files/${file.id}`, { method: 'DELETE' }))
    expect(await deleted.json()).toEqual({ id: file.id, object: 'file', deleted: true })
    expect((await app.get(`/v1/files/${file.id}`)).status).toBe(404)
    expect((await app.get('/v1/files/..%2F..')).status).toBe(404)
  })

  it('that cannot be trained on are refused, with the lines and the reasons', async () => {
    const app = await testApp()
    const bad = [LINES, '{"messages": [', '{"prompt": "x"}', line('q', ''), '{"messages": [{"role": "user", "content": "x"}]}']
    const answer = await upload(app, bad.join('\n'))
    expect(answer.status).toBe(400)
    const text = await message(answer)
    expect(text).toMatch(/line 4: not JSON/)
    expect(text).toContain('line 5: no list "messages"')
    expect(text).toContain('line 6: the last message is empty')
    expect(text).toContain("line 7: the last message is the user's")
    expect(await message(await upload(app, '\n'))).toContain('holds no line')
    expect(await message(await upload(app, LINES, 'data.csv'))).toContain('data.csv')
    expect(await message(await upload(app, '{"preferred_output": []}'))).toContain('preference data')
    expect(await message(await app.post('/v1/files', '{}'))).toContain('multipart/form-data')
  })
})

describe('a fine-tuning job', () => {
  it('trains the last answer of every conversation, and answers under its name', async () => {
    const engine = new FakeEngine()
    const app = await testApp({ engine })
    const job = await trained(app, { num_train_epochs: 2, batch_size: 2, learning_rate: 0.01, lr_scheduler_type: 'constant' })
    expect(job).toMatchObject({ status: 'succeeded', fine_tuned_model: job.id, error: null })
    expect(job.id).toMatch(/^ftjob:tiny:[a-z]+-[a-z]+:\d{8}$/)
    const steps = engine.calls.flatMap((call) => (call.method === 'trainStep' ? [call] : []))
    expect(steps.map(({ sequences }) => sequences.length)).toEqual([2, 1, 2, 1])
    const first = steps.slice(0, 2).flatMap(({ sequences }) => sequences)
    expect(first.map(({ completion }) => byteCodec.decode(completion)).sort()).toEqual(['1', '22', '333'])
    for (const { completion } of first) expect(completion.at(-1)).toBe(257) // the end of the turn is learnt, too
    for (const { dLogprobs, config } of steps) {
      expect(dLogprobs.reduce((sum, value) => sum + value, 0)).toBeCloseTo(-1)
      expect(config).toMatchObject({ learningRate: 0.01, temperature: 1 })
    }
    const chat = await app.post('/v1/chat/completions', {
      model: `openai/arbor:${job.id}`,
      messages: [{ role: 'user', content: 'one' }],
    })
    expect(chat.status).toBe(200)
    expect(engine.calls.at(-1)).toMatchObject({ method: 'generate', request: { policy: job.id } })
    expect((await json<{ data: { id: string }[] }>(app, '/v1/models')).data.map(({ id }) => id)).toContain(job.id)
  })

  it('tells every update with its loss: oldest first, with a limit newest first', async () => {
    const app = await testApp()
    const { id } = await trained(app, { n_epochs: 1, batch_size: 2, lr_scheduler_type: 'linear', learning_rate: 1 })
    const all = (await json<{ data: FineTuningEvent[] }>(app, `/v1/fine_tuning/jobs/${id}/events`)).data
    const logged = all.flatMap((event) => (event.type === 'metrics' ? [event.data] : []))
    expect(logged.map(({ step, steps, learning_rate }) => [step, steps, learning_rate])).toEqual([
      [1, 2, 1],
      [2, 2, 0.5],
    ])
    for (const { loss, source } of logged) expect([source, loss > 0]).toEqual(['training_log', true])
    for (const { data } of all) expect(data).toBeTypeOf('object') // Arbor's watch_job looks into it without asking
    const page = await json<{ data: FineTuningEvent[]; has_more: boolean }>(app, `/v1//fine_tuning/jobs/${id}/events?limit=1`)
    expect(page).toMatchObject({ data: [all.at(-1)], has_more: true })
    const rest = await json<{ data: FineTuningEvent[] }>(app, `/v1/fine_tuning/jobs/${id}/events?after=${all[0]!.id}`)
    expect(rest.data).toEqual(all.slice(1))
  })

  it('gives the same batches for the same seed', async () => {
    const order = async (seed: number) => {
      const engine = new FakeEngine()
      await trained(await testApp({ engine }), { seed, batch_size: 1, n_epochs: 4 })
      return engine.calls.flatMap((call) =>
        call.method === 'trainStep' ? call.sequences.map(({ completion }) => completion.length) : [],
      )
    }
    expect(await order(1)).toEqual(await order(1))
    expect(await order(1)).not.toEqual(await order(2))
  })

  it('refuses what it cannot do, with words', async () => {
    const app = await testApp()
    const training_file = await uploaded(app)
    const post = (body: object) => app.post('/v1/fine_tuning/jobs', { model: MODEL, training_file, ...body })
    expect(await message(await post({ hyperparameters: { learning_rat: 1 } }))).toContain('did you mean "learning_rate"?')
    expect(await message(await post({ hyperparameters: { n_epochs: 1, num_train_epochs: 2 } }))).toContain('they mean the same')
    expect((await post({ model: 'other/model' })).status).toBe(404)
    expect((await post({ training_file: 'file-0' })).status).toBe(404)
    const notes = (await (await upload(app, 'x', 'notes.txt', 'assistants')).json()) as FileObject
    expect(await message(await post({ training_file: notes.id }))).toContain('"assistants"')
    expect((await post({ hyperparameters: { n_epochs: 'auto', batch_size: 'auto', learning_rate: null } })).status).toBe(200)
  })

  it("takes hyperparameters from OpenAI's later place, its multiplier and its seed", async () => {
    const app = await testApp()
    const method = (more: object) => ({ type: 'supervised', supervised: { hyperparameters: { n_epochs: 2, ...more } } })
    const make = (body: object) => create(app, undefined, { hyperparameters: null, ...body })
    const job = await make({ method: method({ learning_rate_multiplier: 2 }), seed: 5, validation_file: 'file-1' })
    expect(job.hyperparameters).toMatchObject({ n_epochs: 2, learning_rate: 2e-5, seed: 5 })
    expect(job.seed).toBe(5)
    const { data } = await json<{ data: FineTuningEvent[] }>(app, `/v1/fine_tuning/jobs/${job.id}/events`)
    expect(data[1]).toMatchObject({ level: 'warn', message: 'The validation file file-1 is not looked at.' })
    await expect(make({ method: { type: 'dpo' } })).rejects.toThrow('method.type is \\"dpo\\"')
    await expect(make({ method: method({ learning_rat: 1 }) })).rejects.toThrow('did you mean')
    await expect(make({ method: method({}), hyperparameters: { n_epochs: 1 } })).rejects.toThrow('give one of them')
    await expect(make({ method: method({ learning_rate: 1, learning_rate_multiplier: 2 }) })).rejects.toThrow('give one of them')
  })

  it('leaves long conversations out, and fails when none is left', async () => {
    const app = await testApp()
    const some = await trained(app, { max_seq_len: 44 })
    const events = (await json<{ data: FineTuningEvent[] }>(app, `/v1/fine_tuning/jobs/${some.id}/events`)).data
    expect(events.find(({ level }) => level === 'warn')?.message).toContain('1 of 3 conversations')
    const none = await trained(app, { max_seq_len: 5 })
    expect(none).toMatchObject({ status: 'failed', fine_tuned_model: null })
    expect(none.error!.message).toContain('All 3 conversations')
  })

  it('that fails says why, and its name does not answer', async () => {
    const app = await testApp({ engine: new FaultyEngine() })
    const job = await trained(app)
    expect(job).toMatchObject({ status: 'failed', error: { message: 'the device is gone' } })
    const chat = await app.post('/v1/chat/completions', { model: job.id, messages: [{ role: 'user', content: 'x' }] })
    expect(chat.status).toBe(404)
  })

  it('can be cancelled, also before its turn', async () => {
    const engine = new FakeEngine()
    const app = await testApp({ engine })
    const first = await create(app, { n_epochs: 1000 })
    const second = await create(app)
    for (const { id } of [second, first]) expect((await app.post(`/v1/fine_tuning/jobs/${id}/cancel`, {})).status).toBe(200)
    await app.services.fineTuning.idle()
    for (const { id } of [first, second])
      expect((await json<FineTuningJobObject>(app, `/v1/fine_tuning/jobs/${id}`)).status).toBe('cancelled')
    expect((await engine.status()).policies).toEqual([])
    expect((await app.post(`/v1/fine_tuning/jobs/${first.id}/cancel`, {})).status).toBe(400)
  })

  it('goes on from another one, with the same adapter only', async () => {
    const engine = new FakeEngine()
    const app = await testApp({ engine })
    const first = await trained(app)
    await create(app, {}, { model: first.id })
    await app.services.fineTuning.idle()
    const opened = engine.calls.flatMap((call) => (call.method === 'openPolicy' ? [call.spec.checkpoint] : []))
    expect(opened[1]).toContain('checkpoint_final')
    const body = { model: first.id, training_file: await uploaded(app), hyperparameters: { use_peft: true } }
    expect(await message(await app.post('/v1/fine_tuning/jobs', body))).toContain('needs the same')
  })
})

describe('a trained model', () => {
  it('answers again after a restart, on its own base only', async () => {
    const app = await testApp()
    const { id } = await trained(app)
    const engine = new FakeEngine()
    const again = await testApp({ engine, storage: app.storage })
    const chat = await again.post('/v1/chat/completions', { model: id, messages: [{ role: 'user', content: 'x' }] })
    expect(chat.status).toBe(200)
    expect(engine.calls.map(({ method }) => method)).toEqual(['openSaved', 'generate'])
    expect(await json(again, `/v1/fine_tuning/jobs/${id}`)).toMatchObject({ status: 'succeeded', fine_tuned_model: id })
    expect((await again.get('/v1/fine_tuning/jobs/ftjob:tiny:no-one:20260101')).status).toBe(404)
  })

  it('is where a GRPO job may start, with the same adapter', async () => {
    const engine = new FakeEngine()
    const app = await testApp({ engine })
    const { lora_config } = TRAINER_CONFIG
    const { id } = await trained(app, { lora_config })
    const job = await initialize(app, { model: `openai/arbor:${id}` })
    expect(job.current_model).toBe(job.job_id)
    const opened = engine.calls.flatMap((call) => (call.method === 'openPolicy' ? [call.spec.checkpoint] : []))
    expect(opened.at(-1)).toContain('checkpoint_final')
    const trainer_config = { ...TRAINER_CONFIG, lora_config: { ...lora_config, r: 8 } }
    await expect(initialize(app, { model: id, trainer_config })).rejects.toThrow('needs the same')
  })
})

describe('a GRPO job', () => {
  it('is seen and cancelled by the same routes', async () => {
    const app = await testApp()
    const { job_id: id } = await initialize(app)
    expect(await json(app, `/v1/fine_tuning/jobs/${encodeURIComponent(id)}`)).toMatchObject({ id, status: 'running' })
    expect(await json(app, `/v1//fine_tuning/jobs/${id}/events`)).toMatchObject({
      data: [{ message: `Created job ${id}.`, data: {} }],
    })
    expect(await app.call(`/v1/fine_tuning/jobs/${id}/cancel`, {})).toMatchObject({ status: 'cancelled' })
    const { data } = await json<{ data: GrpoEvent[] }>(app, `/v1/fine_tuning/jobs/${id}/events`)
    expect(data.at(-1)).toMatchObject({ level: 'error', message: 'The job was ended: cancelled by a client' })
  })

  it('tells its updates as watch_job looks for them, and its end', async () => {
    const app = await testApp()
    const { job_id: id } = await initialize(app)
    const batch = await sampledGroup(app, id, 'one')
    await app.call('/v1/fine_tuning/grpo/step', { job_id: id, model: id, batch_id: 0, batch, metrics: { validation_score: 40 } })
    await app.call('/v1/fine_tuning/grpo/terminate', { job_id: id })
    const { data } = await json<{ data: GrpoEvent[] }>(app, `/v1/fine_tuning/jobs/${id}/events`)
    expect(data.map(({ type }) => type)).toEqual(['message', 'metrics', 'message'])
    expect(data[1]!.data).toMatchObject({ source: 'training_log', step: 1, reward: 0.5, validation_score: 40 })
    expect(await json(app, `/v1/fine_tuning/jobs/${id}`)).toMatchObject({
      status: 'succeeded',
      fine_tuned_model: id,
      error: null,
    })
  })
})

describe('the record of a job', () => {
  const runFile = (app: TestApp, id: string, ...path: string[]) => join(app.storage, 'runs', id.replaceAll(':', '+'), ...path)

  it('goes where report_to says, a step an update, and the run folder says how it ended', async () => {
    vi.stubEnv('WANDB_MODE', 'offline')
    const app = await testApp()
    const { id, status } = await trained(app, { report_to: ['wandb', 'tensorboard'], batch_size: 1, n_epochs: 1, seed: 5 })
    vi.unstubAllEnvs()
    expect(status).toBe('succeeded')
    const steps = readFileSync(runFile(app, id, 'steps.jsonl'), 'utf8')
      .trim()
      .split('\n')
    expect(steps.map((step) => (JSON.parse(step) as { step: number }).step)).toEqual([1, 2, 3])
    for (const place of ['wandb', 'tensorboard']) {
      const files = readdirSync(runFile(app, id, place), { recursive: true, encoding: 'utf8' })
      const log = readFileSync(runFile(app, id, place, files.find((name) => /\.wandb$|tfevents/.test(name))!), 'latin1')
      expect(log.split('train/epoch').length - 1).toBe(place === 'wandb' ? 6 : 3) // in wandb's summary, too
    }
    expect(JSON.parse(readFileSync(runFile(app, id, 'status.json'), 'utf8'))).toMatchObject({ status: 'succeeded', reason: null })
    expect(JSON.parse(readFileSync(runFile(app, id, 'environment.json'), 'utf8'))).toMatchObject({ seed: 5, device: 'no device' })
  })

  it('is refused for a place that we do not write to, before anything is trained', async () => {
    const app = await testApp()
    const body = { model: MODEL, training_file: await uploaded(app), hyperparameters: { report_to: 'tensorbord' } }
    const answer = await app.post('/v1/fine_tuning/jobs', body)
    expect(answer.status).toBe(400)
    expect(await message(answer)).toContain('Did you mean "tensorboard"?')
  })
})
