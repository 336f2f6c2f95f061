// Text completions: the real `openai` package against the app on a real socket.

import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { MODEL, ScriptedEngine, type TestApp, testApp } from './fixture'
import { openSocket, type Socket } from './socket'

describe('completions for the openai client', () => {
  let app: TestApp
  let socket: Socket
  let client: OpenAI
  let engine: ScriptedEngine
  beforeAll(async () => {
    engine = new ScriptedEngine(' wörld. STOP and more')
    app = await testApp({ engine })
    socket = await openSocket(app.fetch, { port: 0 })
    client = new OpenAI({ baseURL: socket.baseUrl, apiKey: 'none', maxRetries: 0 })
  })
  afterAll(() => socket.close())
  const create = (body: object) =>
    client.completions.create({
      model: MODEL,
      prompt: 'Hello',
      max_tokens: 100,
      ...body,
    } as OpenAI.CompletionCreateParamsNonStreaming)
  const prompts = () => engine.requests.map(({ prompt }) => app.services.codec.decode(prompt))

  it('goes on with a text, sixteen tokens unless told otherwise', async () => {
    const answer = await create({})
    expect(answer).toMatchObject({ object: 'text_completion', model: MODEL })
    expect(answer.choices).toEqual([{ index: 0, text: ' wörld. STOP and more', finish_reason: 'stop', logprobs: null }])
    expect(answer.usage).toEqual({ prompt_tokens: 5, completion_tokens: 23, total_tokens: 28 })
    const short = await create({ max_tokens: undefined })
    expect(short.choices[0]).toMatchObject({ text: ' wörld. STOP an', finish_reason: 'length' })
    expect(short.usage!.completion_tokens).toBe(16)
  })

  it('takes tokens, lists of texts and lists of token lists; choices stand prompt by prompt', async () => {
    engine.requests.length = 0
    const tokens = [...Buffer.from('tok')]
    await create({ prompt: tokens })
    expect(prompts()).toEqual(['tok'])
    const answer = await create({ prompt: ['one', 'two'], n: 2, seed: 5, max_tokens: 3 })
    expect(answer.choices.map(({ index, text }) => [index, text])).toEqual([0, 1, 2, 3].map((index) => [index, ' w\uFFFD']))
    expect(answer.usage!.prompt_tokens).toBe(6)
    expect(prompts().slice(1)).toEqual(['one', 'two'])
    await create({ prompt: [tokens, [65]] })
    expect(prompts().slice(3)).toEqual(['tok', 'A'])
    await create({ prompt: 'two', n: 2, seed: 5 })
    expect(engine.requests.at(-1)!.seeds).toEqual(engine.requests[2]!.seeds)
    expect(app.services.completions.get(`${answer.id}#3`)).toMatchObject({ prompt: [...Buffer.from('two')], constrained: false })
  })

  it('shows logprobs as lists side by side, with the places in the text', async () => {
    const answer = await create({ logprobs: 1, stop: 'rl' })
    expect(answer.choices[0]!.text).toBe(' wö')
    const { tokens, token_logprobs, top_logprobs, text_offset } = answer.choices[0]!.logprobs!
    expect(tokens).toEqual([' ', 'w', '\uFFFD', '\uFFFD'])
    expect(token_logprobs!.every((logprob) => logprob < 0)).toBe(true)
    expect(top_logprobs![0]).toEqual({ ' ': token_logprobs![0] })
    expect(text_offset).toEqual([0, 1, 2, 3])
  })

  it('echoes the prompt, with the logprobs of its tokens', async () => {
    const answer = await create({ prompt: ['ab', 'c'], echo: true, logprobs: 0, max_tokens: 2 })
    expect(answer.choices.map(({ text }) => text)).toEqual(['ab w', 'c w'])
    const [first, second] = answer.choices.map(({ logprobs }) => logprobs!)
    expect(first!.tokens).toEqual(['a', 'b', ' ', 'w'])
    expect(first!.token_logprobs).toEqual([null, expect.any(Number), expect.any(Number), expect.any(Number)])
    expect(first!.top_logprobs!.slice(0, 2)).toEqual([null, null])
    expect(second!.text_offset).toEqual([0, 1, 2])
    expect((await create({ prompt: 'ab', echo: true, max_tokens: 0 })).choices[0]).toMatchObject({
      text: 'ab',
      finish_reason: 'length',
    })
  })

  it('streams every choice, reasons and usage last', async () => {
    const body = {
      model: MODEL,
      prompt: ['x', 'y'],
      max_tokens: 100,
      stop: 'STOP',
      echo: true,
      stream_options: { include_usage: true },
    }
    const stream = await client.completions.create({ ...body, logprobs: 0, stream: true })
    const chunks: OpenAI.Completion[] = []
    for await (const chunk of stream) chunks.push(chunk)
    const textOf = (index: number) =>
      chunks
        .flatMap(({ choices }) => choices)
        .filter((choice) => choice.index === index)
        .map(({ text }) => text)
        .join('')
    expect([textOf(0), textOf(1)]).toEqual(['x wörld. ', 'y wörld. '])
    expect(chunks.length).toBeGreaterThan(10)
    const last = chunks.filter(({ choices }) => choices[0]?.finish_reason)
    expect(last.map(({ choices }) => choices[0]!.finish_reason)).toEqual(['stop', 'stop'])
    expect(last[0]!.choices[0]!.logprobs!.tokens!.slice(0, 3)).toEqual(['x', ' ', 'w'])
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { prompt_tokens: 2, completion_tokens: 26 } })
  })

  it('is told what is wrong', async () => {
    const fails = (body: object) =>
      create(body).then(
        () => null,
        (error: InstanceType<typeof OpenAI.APIError>) => error,
      )
    expect(await fails({ model: 'other' })).toMatchObject({ status: 404, code: 'model_not_found' })
    expect(await fails({ prompt: '' })).toMatchObject({ status: 400, param: 'prompt' })
    expect(await fails({ prompt: [] })).toMatchObject({ status: 422, param: 'prompt' })
    expect(await fails({ prompt: [1, 'a'] })).toMatchObject({ status: 422 })
    expect(await fails({ prompt: [400] })).toMatchObject({ status: 400, message: expect.stringContaining('token 400') })
    expect(await fails({ prompt: 'x'.repeat(2048) })).toMatchObject({ status: 400, code: 'context_length_exceeded' })
    expect(await fails({ best_of: 3 })).toMatchObject({ status: 400, param: 'best_of' })
    expect(await fails({ suffix: 'end' })).toMatchObject({ status: 400, param: 'suffix' })
    expect(await fails({ frequency_penalty: 0.5 })).toMatchObject({ status: 400, param: 'frequency_penalty' })
    expect(await fails({ logit_bias: { '5': 100 } })).toMatchObject({ status: 400, param: 'logit_bias' })
    expect(await fails({ prompt: Array(300).fill('a'), n: 4 })).toMatchObject({ status: 400 })
    expect(await fails({ frequency_penalty: 0, presence_penalty: null, logit_bias: {}, best_of: 1, suffix: null })).toBeNull()
  })

  it('ends all its prompts when the connection closes', async () => {
    const slow = new ScriptedEngine('x'.repeat(300_000), 400_000)
    const other = await openSocket((await testApp({ engine: slow })).fetch, { port: 0 })
    const impatient = new OpenAI({ baseURL: other.baseUrl, apiKey: 'none', maxRetries: 0 })
    const closed = new AbortController()
    const body = { model: MODEL, prompt: ['a', 'b'], max_tokens: 300_000 }
    const asked = impatient.completions.create(body, { signal: closed.signal }).catch(() => {})
    while (slow.requests.length < 2) await new Promise((resolve) => setTimeout(resolve, 5))
    closed.abort()
    await asked
    while (slow.aborted < 2) await new Promise((resolve) => setTimeout(resolve, 5))
    expect((await slow.status()).running).toBe(0)
    await other.close()
  })
})
