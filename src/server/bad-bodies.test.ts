// Whatever a client sends, it gets JSON that says what is wrong, and the server goes on.

import { describe, expect, it } from 'vitest'
import { initialize, MODEL, TRAINER_CONFIG, testApp } from './fixture'
import { HttpError } from './http-errors'
import { bounded, MAX_BODY_BYTES } from './request-body'

type ErrorBody = { error: { message: string; type: string; param: string | null; code: string }; detail: unknown }

const ROUTES = [
  '/v1/chat/completions',
  '/v1/chat/launch',
  '/v1/chat/kill',
  ...['initialize', 'status', 'step', 'checkpoint', 'terminate', 'cancel'].map((name) => `/v1/fine_tuning/grpo/${name}`),
]
const BODIES = [
  '',
  '{',
  'null',
  '[]',
  '"text"',
  '17',
  '{"job_id":7}',
  '{"model":{}}',
  '{"messages":"hi","model":"m"}',
  '{"job_id":"../../x"}',
  '{"__proto__":{"x":1}}',
  `{"model":"${'x'.repeat(9999)}"}`,
]

describe('bad bodies', () => {
  it('get a 4xx with a readable JSON error, on every route', async () => {
    const app = await testApp()
    for (const route of ROUTES)
      for (const body of BODIES) {
        const response = await app.post(route, body)
        if (route.endsWith('kill') && response.status === 200) continue // a body without a job means all
        const json = (await response.json()) as ErrorBody
        expect([route, body, response.status]).toEqual([
          route,
          body,
          expect.toSatisfy((status: number) => status >= 400 && status < 500),
        ])
        expect(json.error.message.length).toBeGreaterThan(5)
        expect(json.detail).toBeTruthy()
      }
    expect((await app.get('/health')).status).toBe(200)
  })

  it('name the field, and the nearest known name of an unknown key', async () => {
    const app = await testApp()
    const trainer_config = { ...TRAINER_CONFIG, learning_rte: 1e-4 }
    const response = await app.post('/v1/fine_tuning/grpo/initialize', { model: MODEL, trainer_config })
    expect(response.status).toBe(422)
    const body = (await response.json()) as ErrorBody
    expect(body.error.message).toContain('unknown key "learning_rte", did you mean "learning_rate"?')
    expect(body.detail).toEqual([{ type: 'unrecognized_keys', loc: ['body', 'trainer_config'], msg: expect.any(String) }])
    const wrong = async (config: object) => {
      const answer = await app.post('/v1/fine_tuning/grpo/initialize', {
        model: MODEL,
        trainer_config: { ...TRAINER_CONFIG, ...config },
      })
      return `${answer.status} ${((await answer.json()) as ErrorBody).error.message}`
    }
    expect(await wrong({ loss_type: 'dpo' })).toMatch(/^422 trainer_config\.loss_type: /)
    expect(await wrong({ lora_config: { ...TRAINER_CONFIG.lora_config, alpha: 3 } })).toMatch(/^422 .*"alpha"/)
    expect(await wrong({ temperature: 0 })).toMatch(/^400 .*temperature/)
    expect(await wrong({ soft_completion_penalty_length: 10 })).toMatch(/^400 .*max_completion_length/)
    expect(await wrong({ num_generations: 1 })).toMatch(/^422 trainer_config\.num_generations/)
  })

  it('of a step are refused before anything is trained', async () => {
    const app = await testApp()
    const { job_id } = await initialize(app)
    const sample = { messages: [{ role: 'user', content: 'q' }], completion: { role: 'assistant', content: 'a' }, reward: 1 }
    const post = async (batch: unknown, more: object = {}) =>
      (await app.post('/v1/fine_tuning/grpo/step', { job_id, model: job_id, batch_id: 0, batch, ...more })).status
    expect(await post([sample])).toBe(400) // num_generations is 4
    expect(await post([])).toBe(422)
    expect(await post([{ ...sample, reward: null }, sample, sample, sample])).toBe(422)
    expect(await post([[sample, sample]], { groups: [] })).toBe(400)
    const turns = { ...sample, completion: [sample.completion, sample.completion] }
    expect(await post([turns, turns, turns, turns])).toBe(400)
    expect(await post([sample, sample, sample, sample], { job_id: 'grpo:none' })).toBe(400)
    for (const checkpoint_name of ['../up', 'a/b', '.hidden', ''])
      expect((await app.post('/v1/fine_tuning/grpo/checkpoint', { job_id, checkpoint_name })).status).toBe(422)
    await app.services.jobs.get(job_id).trained()
    expect(app.services.jobs.get(job_id).records).toEqual([])
  })

  it('that are nested too deeply are refused, wherever it is that they are deep', async () => {
    const app = await testApp()
    const { job_id } = await initialize(app)
    const deep = (open: string, close: string, depth = 50_000) => `${open.repeat(depth)}1${close.repeat(depth)}`
    const chat = `"model":"${MODEL}","messages":[{"role":"user","content":"x"}]`
    const format = (schema: string) => `{${chat},"response_format":{"type":"json_schema","json_schema":{"schema":${schema}}}}`
    const posts = [
      ['/chat/completions', `{${chat},"x":${deep('[', ']')}}`],
      ['/chat/completions', format(deep('{"allOf":[', ']}'))],
      ['/chat/completions', format(deep('{"properties":{"a":', '}}'))],
      ['/chat/completions', format(deep('{"allOf":[', ']}', 150))],
      ['/chat/completions', format(deep('{"items":', '}', 250))],
      ['/chat/completions', format(deep('{"anyOf":[', ']}', 120))],
      ['/fine_tuning/grpo/checkpoint', `{"job_id":"${job_id}","checkpoint_name":"c","metadata":{"a":${deep('{"a":', '}')}}}`],
      ['/chat/launch', `{"model":"${MODEL}","launch_kwargs":{"a":${deep('[', ']')}}}`],
      ['/fine_tuning/grpo/status', deep('[', ']')],
    ] as const
    for (const [path, body] of posts) {
      const response = await app.post(`/v1${path}`, body)
      const { error } = (await response.json()) as ErrorBody
      expect([path, body.slice(0, 150), response.status, error.message]).toEqual([
        path,
        body.slice(0, 150),
        expect.toSatisfy((status: number) => status >= 400 && status < 500),
        expect.not.stringContaining('stack'),
      ])
    }
    expect((await app.get('/health')).status).toBe(200)
  })

  it('that are too large are not read', async () => {
    const app = await testApp()
    const chunk = new Uint8Array(1024 * 1024).fill(32)
    let pulled = 0
    const body = new ReadableStream({ pull: (controller) => (++pulled > 100 ? controller.close() : controller.enqueue(chunk)) })
    const init = { method: 'POST', body, duplex: 'half' } as RequestInit
    const response = await app.fetch(new Request('http://localhost/v1/chat/completions', init))
    expect(response.status).toBe(413)
    expect(pulled).toBeLessThan(MAX_BODY_BYTES / chunk.length + 5)
  })
})

describe('a form that is too large', () => {
  const form = (bytes: number) => {
    const data = new FormData()
    data.set('file', new File(['x'.repeat(bytes)], 'data.jsonl'))
    return new Request('http://localhost/v1/files', { method: 'POST', body: data })
  }
  const thrown = (read: Promise<unknown>) =>
    read.then(
      () => null,
      (error: Error & { cause?: unknown }) => error,
    )

  it('is ended where the limit is, though its length was not told', async () => {
    expect((await bounded(form(100), 1024).formData()).get('file')).toBeInstanceOf(File)
    const error = (await thrown(bounded(form(5000), 1024).formData()))!
    const causes = [error, error.cause].filter((one) => one instanceof HttpError)
    expect(causes).toMatchObject([{ status: 413 }])
    const told = new Request('http://localhost', { method: 'POST', body: 'x', headers: { 'content-length': '5000' } })
    expect(() => bounded(told, 1024)).toThrow('larger than')
  })
})

describe('the routes around chat', () => {
  it('launch with and without launch_kwargs, kill with and without a body, as the clients send them', async () => {
    const app = await testApp()
    const launched = await app.call('/v1/chat/launch', { model: `arbor:${MODEL}`, launch_kwargs: {} })
    expect(launched).toEqual({
      message: 'Inference server launched',
      job_id: expect.stringMatching(/^infer:tiny:\d{8}$/),
      model: MODEL,
    })
    expect(await app.call('/chat/launch', { model: MODEL, num_gpus: 1, max_seq_len: null })).toEqual(launched)
    expect((await app.post('/v1/chat/launch', { model: 'other/model' })).status).toBe(404)
    expect((await app.post('/v1/chat/kill', '')).status).toBe(200)
    expect((await app.post('/v1/chat/kill', { job_id: '*' })).status).toBe(200)
    expect(await app.call('/v1/chat/kill', { job_id: launched['job_id'] })).toMatchObject({ job_id: launched['job_id'] })
    expect((await app.post('/v1/chat/kill', { job_id: 'nobody' })).status).toBe(400)
  })

  it('are found with doubled slashes; what is not there is a 404 in JSON, with a request id', async () => {
    const app = await testApp()
    expect((await app.get('/v1//models')).status).toBe(200)
    expect((await app.get('//health')).status).toBe(200)
    const lost = await app.get('/v1/nothing')
    expect(lost.status).toBe(404)
    expect(lost.headers.get('x-request-id')).toMatch(/^[\da-f-]{36}$/)
    expect(((await lost.json()) as ErrorBody).error.message).toContain('GET /nothing')
  })

  it('do not answer a web page from elsewhere', async () => {
    const app = await testApp()
    const ask = (origin: string) =>
      app.fetch(new Request('http://localhost/v1/chat/kill', { method: 'POST', headers: { origin } }))
    expect((await ask('https://example.com')).status).toBe(403)
    expect((await ask('http://localhost.example.com')).status).toBe(403)
    expect((await ask('http://localhost:8888')).status).toBe(200)
  })
})
