// A server without a model: what it answers, and how it gets one.

import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'
import { ModelError } from '../errors'
import { modelOnDemand } from './first-model'
import { initialize, MODEL, testApp } from './fixture'

let storage: string
let asked: string[]
let app: (request: Request) => Promise<Response>
beforeEach(() => {
  storage = mkdtempSync(join(tmpdir(), 'arbor-first-'))
  asked = []
  app = modelOnDemand(storage, async (model) => {
    asked.push(model)
    if (model !== MODEL) throw new ModelError(`"${model}" is no model.`)
    return (await testApp({ storage })).fetch
  })
})

const get = (path: string) => app(new Request(`http://localhost${path}`))
const post = (path: string, body: object | string, headers: Record<string, string> = {}) =>
  app(
    new Request(`http://localhost${path}`, {
      method: 'POST',
      headers,
      body: typeof body === 'string' ? body : JSON.stringify(body),
    }),
  )
const chat = (model: string) => post('/v1/chat/completions', { model, messages: [{ role: 'user', content: 'hi' }] })
const message = async (response: Response) => ((await response.json()) as { error: { message: string } }).error.message

describe('a server without a model', () => {
  it('answers with empty lists, keeps files and has nothing to kill', async () => {
    expect(await (await get('/v1/models')).json()).toEqual({ object: 'list', data: [] })
    expect(await (await get('//health')).json()).toMatchObject({ status: 'ok', model: null })
    expect((await post('/chat/kill', '')).status).toBe(200)
    const form = new FormData()
    form.set('purpose', 'assistants')
    form.set('file', new File(['notes'], 'notes.txt'))
    expect((await app(new Request('http://localhost/v1/files', { method: 'POST', body: form }))).status).toBe(200)
    expect(((await (await get('/v1/files')).json()) as { data: unknown[] }).data).toHaveLength(1)
    const lost = await post('/v1/fine_tuning/grpo/status', { job_id: 'grpo:x' })
    expect(`${lost.status} ${await message(lost)}`).toMatch(/^404 No model is loaded here yet/)
    expect(asked).toEqual([])
  })

  it('loads the model of the first request that names one, once for all that come at the same time', async () => {
    const answers = await Promise.all([chat(`openai/arbor:${MODEL}`), chat(MODEL), chat(MODEL)])
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200])
    expect(asked).toEqual([MODEL])
    expect(((await (await get('/v1/models')).json()) as { data: { id: string }[] }).data.map(({ id }) => id)).toEqual([MODEL])
    expect(await message(await chat('another/model'))).toContain('not served here')
    expect(asked).toEqual([MODEL])
  })

  it.each([
    ['/v1/chat/launch', { model: MODEL, launch_kwargs: {} }],
    ['/fine_tuning/grpo/initialize', { model: MODEL, trainer_config: { num_generations: 4 } }],
  ])('loads it for %s, too', async (path, body) => {
    expect((await post(path, body)).status).toBe(200)
    expect(asked).toEqual([MODEL])
  })

  it('goes on without one where a name is wrong or missing', async () => {
    expect(await message(await chat('nobody/knows'))).toContain('"nobody/knows" is no model')
    expect((await post('/v1/chat/completions', { messages: [] })).status).toBe(422)
    expect((await post('/v1/chat/completions', '{')).status).toBe(400)
    expect((await chat(MODEL)).status).toBe(200)
    expect(asked).toEqual(['nobody/knows', MODEL])
  })

  it('loads nothing for a web page from elsewhere', async () => {
    expect((await post('/v1/chat/launch', { model: MODEL }, { origin: 'https://example.com' })).status).toBe(403)
    expect(asked).toEqual([])
  })

  it("takes a job of an earlier server for the job's base", async () => {
    const before = await testApp({ storage })
    const { job_id } = await initialize(before)
    await before.call('/v1/fine_tuning/grpo/terminate', { job_id })
    await chat(job_id)
    expect(asked).toEqual([MODEL])
    const other = modelOnDemand(storage, () => Promise.reject(new Error('not asked for')))
    const lost = await other(
      new Request('http://localhost/v1/chat/launch', { method: 'POST', body: '{"model":"grpo:tiny:no-one:20260101"}' }),
    )
    expect(`${lost.status} ${await message(lost)}`).toMatch(/^404 There is no run "grpo:tiny:no-one:20260101"/)
  })
})
