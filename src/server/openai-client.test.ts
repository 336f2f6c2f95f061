// The real `openai` package against the app on a real socket.

import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { MODEL, ScriptedEngine, type TestApp, TRAINER_CONFIG, testApp } from './fixture'
import { openSocket, type Socket } from './socket'

const messages = [{ role: 'user' as const, content: 'What is 2+2?' }]

describe('the openai client', () => {
  let app: TestApp
  let socket: Socket
  let client: OpenAI
  let engine: ScriptedEngine
  beforeAll(async () => {
    engine = new ScriptedEngine('Hello wörld. STOP and more')
    app = await testApp({ engine })
    socket = await openSocket(app.fetch, { port: 0 })
    client = new OpenAI({ baseURL: socket.baseUrl, apiKey: 'none', maxRetries: 0 })
  })
  afterAll(() => socket.close())

  it('gets a completion with usage, under the name that it asked for', async () => {
    const answer = await client.chat.completions.create({ model: `arbor:${MODEL}`, messages })
    expect(answer.model).toBe(`arbor:${MODEL}`)
    expect(answer.choices[0]!.message.content).toBe('Hello wörld. STOP and more')
    expect(answer.choices[0]!.finish_reason).toBe('stop')
    expect(answer.usage!.completion_tokens).toBe(28) // a byte a token, ö is two, and the end token
    expect(answer.usage!.total_tokens).toBe(answer.usage!.prompt_tokens + 28)
  })

  it('cuts before a stop string and keeps the tokens that completed it', async () => {
    const answer = await client.chat.completions.create({ model: MODEL, messages, stop: [' more', 'STOP'] })
    expect(answer.choices[0]).toMatchObject({ message: { content: 'Hello wörld. ' }, finish_reason: 'stop' })
    const kept = app.services.completions.get(`${answer.id}#0`)!
    expect(app.services.codec.decode(kept.tokens)).toBe('Hello wörld. STOP')
    expect(kept.logprobs).toHaveLength(kept.tokens.length)
    expect(kept.truncated).toBe(false)
  })

  it('marks a completion that the limit cut', async () => {
    const answer = await client.chat.completions.create({ model: MODEL, messages, max_tokens: 5 })
    expect(answer.choices[0]).toMatchObject({ message: { content: 'Hello' }, finish_reason: 'length' })
    expect(app.services.completions.get(`${answer.id}#0`)!.truncated).toBe(true)
  })

  it('gets n choices with seeds of their own, the same ones for the same seed', async () => {
    await client.chat.completions.create({ model: MODEL, messages, n: 3, seed: 7 })
    const seeds = engine.requests.at(-1)!.seeds
    expect(new Set(seeds).size).toBe(3)
    expect(seeds.every(Number.isSafeInteger)).toBe(true)
    const answer = await client.chat.completions.create({ model: MODEL, messages, n: 3, seed: 7 })
    expect(engine.requests.at(-1)!.seeds).toEqual(seeds)
    expect(answer.choices.map((choice) => choice.index)).toEqual([0, 1, 2])
    await client.chat.completions.create({ model: MODEL, messages, n: 1 })
    await client.chat.completions.create({ model: MODEL, messages, n: 1 })
    expect(engine.requests.at(-1)!.seeds).not.toEqual(engine.requests.at(-2)!.seeds)
  })

  it('gets for a list of seeds what each seed gets alone, with the tokens of each', async () => {
    const answer = await client.chat.completions.create({ model: MODEL, messages, seeds: [7, 9] } as never)
    const { seeds } = engine.requests.at(-1)!
    for (const [i, seed] of [7, 9].entries()) {
      await client.chat.completions.create({ model: MODEL, messages, seed })
      expect(engine.requests.at(-1)!.seeds).toEqual([seeds[i]])
    }
    expect((answer as OpenAI.ChatCompletion).choices).toMatchObject([{ completion_tokens: 28 }, { completion_tokens: 28 }])
  })

  it('shows logprobs of the tokens that carry the text', async () => {
    const answer = await client.chat.completions.create({ model: MODEL, messages, logprobs: true, top_logprobs: 1, stop: 'lo' })
    const content = answer.choices[0]!.logprobs!.content!
    expect(content.map((entry) => entry.token).join('')).toBe('Hel')
    expect(content[0]).toMatchObject({ bytes: [72], logprob: expect.any(Number), top_logprobs: [{ token: 'H' }] })
  })

  it('streams the same text, the role first, the reason and the usage last', async () => {
    const stream = await client.chat.completions.create({
      model: MODEL,
      messages,
      stop: 'STOP',
      stream: true,
      stream_options: { include_usage: true },
    })
    const chunks = []
    for await (const chunk of stream) chunks.push(chunk)
    expect(chunks[0]!.choices[0]!.delta.role).toBe('assistant')
    const pieces = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').filter((piece) => piece !== '')
    expect(pieces.join('')).toBe('Hello wörld. ')
    expect(pieces.length).toBeGreaterThan(5)
    expect(chunks.at(-2)!.choices[0]!.finish_reason).toBe('stop')
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: 18 } })
  })

  it('is told what is wrong in an error body that it can read', async () => {
    const fails = async (body: object) =>
      client.chat.completions.create({ model: MODEL, messages, ...body }).then(
        () => null,
        (error: InstanceType<typeof OpenAI.APIError>) => error,
      )
    expect(await fails({ model: 'other/model' })).toMatchObject({ status: 404, code: 'model_not_found', param: 'model' })
    expect(await fails({ temperature: -1 })).toMatchObject({ status: 422, param: 'temperature' })
    expect(await fails({ messages: [] })).toMatchObject({ status: 422, param: 'messages' })
    const long = await fails({ messages: [{ role: 'user', content: 'x'.repeat(5000) }] })
    expect(long).toMatchObject({ status: 400, code: 'context_length_exceeded' })
    expect(long!.message).toContain('maximum context length is 2048 tokens')
    const tools = [{ type: 'function', function: { name: 'look', parameters: {} } }]
    expect(await fails({ tools })).toMatchObject({ status: 400, param: 'tools' })
    expect(await fails({ tools: [], max_tokens: 1 })).toBeNull()
    const image = [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }]
    expect(await fails({ messages: image })).toMatchObject({ status: 400 })
  })

  it('takes null values, parts of text, json_object and the vLLM extensions', async () => {
    const body = {
      model: `openai/arbor:${MODEL}`,
      messages: [
        {
          role: 'user',
          content: [
            { type: 'text', text: 'What is ' },
            { type: 'text', text: '2+2?' },
          ],
        },
      ],
      max_tokens: null,
      top_k: -1,
      repetition_penalty: 1.0,
      min_p: 0,
      stop: null,
      response_format: { type: 'json_object' },
      user: 'somebody',
    }
    await app.call('/v1/chat/completions', body)
    const request = engine.requests.at(-1)!
    expect(request.sampling).toEqual({ temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 })
    expect(app.services.codec.decode(request.prompt)).toContain('What is 2+2?')
    expect(request.maxNewTokens).toBe(2048 - request.prompt.length)
  })

  it('lists and finds models, slashes and colons escaped or not', async () => {
    const { job_id } = await app.call<{ job_id: string }>('/v1/fine_tuning/grpo/initialize', {
      model: MODEL,
      trainer_config: TRAINER_CONFIG,
    })
    const names = []
    for await (const model of client.models.list()) names.push(model.id)
    expect(names).toEqual([MODEL, job_id])
    expect((await client.models.retrieve(MODEL)).id).toBe(MODEL)
    expect((await client.models.retrieve(job_id)).id).toBe(job_id)
    expect((await app.get(`/models/${MODEL}`)).status).toBe(200)
    await expect(client.models.retrieve('nothing')).rejects.toMatchObject({ status: 404 })
  })
})

describe('a connection that closes', () => {
  // The reply takes some seconds, so the closing comes long before its end; a machine that stalls for seconds would fail here.
  it('aborts its sequences, streamed or not', async () => {
    const engine = new ScriptedEngine('x'.repeat(300_000), 400_000)
    const socket = await openSocket((await testApp({ engine })).fetch, { port: 0 })
    const client = new OpenAI({ baseURL: socket.baseUrl, apiKey: 'none', maxRetries: 0 })
    const streamed = async () => {
      const closed = new AbortController()
      const stream = await client.chat.completions.create({ model: MODEL, messages, stream: true }, { signal: closed.signal })
      for await (const chunk of stream) if (chunk.choices[0]?.delta.content) closed.abort()
    }
    await streamed().catch(() => {})
    await expect.poll(() => engine.aborted).toBe(1)
    const whole = new AbortController()
    const asked = client.chat.completions.create({ model: MODEL, messages }, { signal: whole.signal })
    setTimeout(() => whole.abort(), 50)
    await expect(asked).rejects.toThrow(/abort/i)
    await expect.poll(() => engine.aborted).toBe(2)
    await socket.close()
  })
})
