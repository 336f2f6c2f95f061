// Constrained decoding: the real `openai` package and a model that says anything but JSON by itself.

import OpenAI from 'openai'
import { zodResponseFormat } from 'openai/helpers/zod'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { initialize, MODEL, ScriptedEngine, type TestApp, testApp } from './fixture'
import { openSocket, type Socket } from './socket'

const messages = [{ role: 'user' as const, content: 'Who?' }]
const Person = z.object({
  name: z.string(),
  age: z.int().min(0).max(150),
  pets: z.array(z.object({ kind: z.enum(['cat', 'dog']), 'called "name"': z.string().nullable() })).max(3),
})

describe('response_format', () => {
  let app: TestApp
  let socket: Socket
  let client: OpenAI
  let engine: ScriptedEngine
  beforeAll(async () => {
    engine = new ScriptedEngine('I would rather not say.')
    app = await testApp({ engine })
    socket = await openSocket(app.fetch, { port: 0 })
    client = new OpenAI({ baseURL: socket.baseUrl, apiKey: 'none', maxRetries: 0 })
  })
  afterAll(() => socket.close())
  const ask = (response_format: object, body: object = {}) =>
    client.chat.completions.create({
      model: MODEL,
      messages,
      response_format,
      ...body,
    } as OpenAI.ChatCompletionCreateParamsNonStreaming)

  it('json_schema: every choice is JSON that fits, ends by itself, and parses with the helper', async () => {
    const format = zodResponseFormat(Person, 'person')
    const answer = await client.chat.completions.parse({
      model: MODEL,
      messages,
      response_format: format,
      n: 8,
      seed: 1,
      max_tokens: 200,
    })
    for (const { message, finish_reason } of answer.choices) {
      expect(finish_reason).toBe('stop')
      expect(Person.parse(message.parsed)).toEqual(JSON.parse(message.content!))
    }
    expect(new Set(answer.choices.map(({ message }) => message.content)).size).toBe(8)
    expect(app.services.completions.get(`${answer.id}#0`)).toMatchObject({ constrained: true, altered: false })
  })

  it('json_object: an object, of whatever', async () => {
    const answer = await ask({ type: 'json_object' }, { n: 5, max_tokens: 120 })
    for (const { message } of answer.choices) expect(JSON.parse(message.content!)).toBeTypeOf('object')
  })

  it('streams, and constrains text completions too', async () => {
    const response_format = {
      type: 'json_schema',
      json_schema: { name: 'list', schema: { type: 'array', items: { type: 'boolean' }, minItems: 2 } },
    }
    const stream = await client.chat.completions.create({
      model: MODEL,
      messages,
      response_format,
      stream: true,
    } as OpenAI.ChatCompletionCreateParamsStreaming)
    let text = ''
    for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? ''
    expect(JSON.parse(text).length).toBeGreaterThan(1)
    const plain = await client.completions.create({
      model: MODEL,
      prompt: 'x',
      max_tokens: 60,
      response_format,
    } as OpenAI.CompletionCreateParamsNonStreaming)
    expect(JSON.parse(plain.choices[0]!.text).length).toBeGreaterThan(1)
  })

  it('comes to an end within max_tokens, which counts as cut short; where nothing fits, it is cut', async () => {
    const schema = { type: 'object', properties: { essay: { type: 'string', minLength: 3 } }, required: ['essay'] }
    const format = { type: 'json_schema', json_schema: { name: 'essay', schema } }
    for (const max_tokens of [17, 18, 25, 40]) {
      const { id, choices } = await ask(format, { max_tokens, n: 4, seed: max_tokens })
      for (const { index, message, finish_reason } of choices) {
        expect([max_tokens, finish_reason, JSON.parse(message.content!).essay.length >= 3]).toEqual([max_tokens, 'stop', true])
        if (max_tokens === 17) expect(app.services.completions.get(`${id}#${index}`)!.truncated).toBe(true)
      }
    }
    const { choices } = await ask(format, { max_tokens: 10 })
    expect(choices[0]).toMatchObject({ finish_reason: 'length', message: { content: expect.stringMatching(/^\{\s?"essay/) } })
  })

  it('makes the masks of a schema once: a second request finds them', async () => {
    const format = { type: 'json_schema', json_schema: { name: 'bit', schema: { enum: ['yes', 'no'] } } } as const
    await ask(format, { n: 8 })
    const before = app.services.constraints.of(format)!
    const masks = before.size
    expect(masks).toBeGreaterThan(3)
    await ask(format, { n: 8 })
    expect(app.services.constraints.of(format)).toBe(before)
    expect(before.size).toBe(masks)
  })

  it('takes enums of thousands, and forgets what it learned of a schema once that is too much', async () => {
    const names = Array.from({ length: 5000 }, (_, i) => `name "${i}" of ${i % 7}`)
    const format = { type: 'json_schema', json_schema: { schema: { enum: [...names, 'name "1', 3, null] } } } as const
    const { choices } = await ask(format, { n: 6, seed: 2 })
    for (const { message } of choices) expect([...names, 'name "1', 3, null]).toContain(JSON.parse(message.content!))
    const list = { type: 'array', items: { $ref: '#/$defs/l' } }
    const nested = { type: 'json_schema', json_schema: { schema: { $ref: '#/$defs/l', $defs: { l: list } } } } as const
    const first = app.services.constraints.of(nested)!
    expect(app.services.constraints.of(nested)).toBe(first)
    let state = first.start
    for (let depth = 0; !first.worn && depth < 200_000; depth++) state = state.after('['.charCodeAt(0))!
    expect(first.worn).toBe(true)
    expect(app.services.constraints.of(nested)).not.toBe(first)
  })

  it("leaves text as it is, and says what it can't keep", async () => {
    expect((await ask({ type: 'text' })).choices[0]!.message.content).toBe('I would rather not say.')
    const fails = (format: object) =>
      ask(format).then(
        () => null,
        (error: InstanceType<typeof OpenAI.APIError>) => error,
      )
    const schema = { type: 'object', properties: { a: { not: {} } } }
    const refused = await fails({ type: 'json_schema', json_schema: { name: 'x', schema } })
    expect(refused).toMatchObject({ status: 400, code: 'invalid_json_schema', param: 'response_format.json_schema.schema' })
    expect(refused!.message).toContain('#/properties/a: "not"')
    expect(await fails({ type: 'json_schema', json_schema: { name: 'x', schema: 7 } })).toMatchObject({ status: 422 })
    const lengths = Array.from({ length: 2100 }, (_, i) => ({ type: 'string', pattern: `^a*${i}$` }))
    const alike = await fails({ type: 'json_schema', json_schema: { schema: { anyOf: lengths } } })
    expect(alike).toMatchObject({ status: 400, code: 'grammar_too_large' })
    expect(await fails({ type: 'xml' })).toMatchObject({ status: 422, param: 'response_format.type' })
    expect(await fails({ type: 'json_schema' })).toMatchObject({ status: 422, param: 'response_format.json_schema' })
  })

  it('is reported apart in the record of a step that trains such rollouts', async () => {
    const { job_id } = await initialize(app)
    const { id, choices } = await ask(zodResponseFormat(Person, 'person'), { model: job_id, n: 4, seed: 3 })
    const batch = choices.map(({ index, message }) => ({
      messages,
      completion: { role: 'assistant', content: message.content },
      reward: index % 2,
      completion_id: `${id}#${index}`,
    }))
    await app.call('/v1/fine_tuning/grpo/step', { job_id, model: job_id, batch_id: 0, batch })
    const job = app.services.jobs.get(job_id)
    await job.trained()
    const [record] = job.records
    expect(record).toMatchObject({ rows_constrained: 4, logprob_gap_max: null })
    expect(record!.logprob_gap_max_constrained).toBeLessThan(1e-6)
    expect(record!.notes.join()).toContain('tokens were sampled under a grammar')
  })
})
