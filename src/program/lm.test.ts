import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ContextWindowExceededError, LMError, OptionError } from '../errors'
import { configureCache } from './cache'
import { context } from './context'
import { LM } from './lm'

let server: Server | null = null
afterEach(() => server?.close())

type Answer = { status?: number; headers?: Record<string, string>; body: unknown } | { stream: unknown[] } | 'hang' | 'drop'

/** A server that answers in turn, and remembers what it was asked. */
async function serve(...answers: Answer[]): Promise<{ apiBase: string; bodies: Record<string, unknown>[]; paths: string[] }> {
  const bodies: Record<string, unknown>[] = []
  const paths: string[] = []
  const handle = (request: IncomingMessage, response: ServerResponse) => {
    let text = ''
    request.on('data', (chunk) => (text += chunk))
    request.on('end', () => {
      paths.push(request.url ?? '')
      bodies.push(JSON.parse(text))
      const answer = answers.length > 1 ? answers.shift()! : answers[0]!
      if (answer === 'drop') request.socket.destroy()
      if (answer === 'drop' || answer === 'hang') return
      if ('stream' in answer) {
        response.writeHead(200, { 'content-type': 'text/event-stream' })
        for (const chunk of answer.stream) response.write(`data: ${JSON.stringify(chunk)}\n\n`)
        response.end('data: [DONE]\n\n')
        return
      }
      response.writeHead(answer.status ?? 200, { 'content-type': 'application/json', ...answer.headers })
      response.end(JSON.stringify(answer.body))
    })
  }
  server = createServer(handle)
  await new Promise<void>((resolve) => server!.listen(0, '127.0.0.1', resolve))
  return { apiBase: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`, bodies, paths }
}

const completion = (...texts: string[]) => ({
  body: {
    id: 'chatcmpl-7',
    object: 'chat.completion',
    model: 'arbor:m',
    choices: texts.map((content, index) => ({
      index,
      finish_reason: index === 0 ? 'stop' : 'length',
      message: { role: 'assistant', content },
      logprobs: { content: [{ token: content, logprob: -0.5, bytes: null, top_logprobs: [] }] },
    })),
    usage: { prompt_tokens: 5, completion_tokens: 2, total_tokens: 7 },
  },
})

describe('LM', () => {
  it('sends messages and sampling values with their wire names, and leaves out what is not set', async () => {
    const { apiBase, bodies, paths } = await serve(completion('x'))
    const lm = new LM('openai/arbor:m', { apiBase, temperature: 0, topK: -1, repetitionPenalty: 1, maxTokens: null })
    await lm.call({ prompt: 'hi', seed: 3, n: 1, topP: 0.9, minP: 0.1, logprobs: true, rolloutId: 4, extraBody: { owner: 'me' } })
    expect(paths).toEqual(['/v1/chat/completions'])
    expect(bodies).toEqual([
      {
        model: 'arbor:m',
        messages: [{ role: 'user', content: 'hi' }],
        temperature: 0,
        top_k: -1,
        repetition_penalty: 1,
        seed: 3,
        n: 1,
        top_p: 0.9,
        min_p: 0.1,
        logprobs: true,
        owner: 'me',
      },
    ])
  })

  it('gives each choice the id under which the server knows its tokens', async () => {
    const { apiBase } = await serve(completion('x', 'y'))
    const lm = new LM('openai/arbor:m', { apiBase })
    const { outputs, usage } = await lm.call({ prompt: 'hi', n: 2 })
    expect(outputs).toEqual([
      { text: 'x', completionId: 'chatcmpl-7#0', finishReason: 'stop', logprobs: [{ token: 'x', logprob: -0.5 }] },
      { text: 'y', completionId: 'chatcmpl-7#1', finishReason: 'length', logprobs: [{ token: 'y', logprob: -0.5 }] },
    ])
    expect(usage).toEqual({ promptTokens: 5, completionTokens: 2, totalTokens: 7 })
    expect(lm.history).toMatchObject([{ options: { n: 2 }, outputs }])
  })

  it('tries again after a server error and a lost connection', async () => {
    const { apiBase, bodies } = await serve({ status: 503, body: { error: { message: 'busy' } } }, 'drop', completion('x'))
    const { outputs } = await new LM('openai/arbor:m', { apiBase, numRetries: 3 }).call({ prompt: 'hi' })
    expect(outputs[0]!.text).toBe('x')
    expect(bodies).toHaveLength(3)
  })

  it('tells a prompt that is too long from other errors, and does not repeat it', async () => {
    const body = { error: { message: "This model's maximum context length is 64 tokens, but the prompt has 70.", code: 400 } }
    const { apiBase, bodies } = await serve({ status: 400, body })
    const call = new LM('openai/arbor:m', { apiBase }).call({ prompt: 'hi' })
    await expect(call).rejects.toThrow(ContextWindowExceededError)
    await expect(call).rejects.toThrow(/maximum context length is 64/)
    expect(bodies).toHaveLength(1)
  })

  it('names model, place and status of an error', async () => {
    const { apiBase } = await serve({ status: 404, body: { error: { message: 'no such model' } } })
    const call = new LM('openai/arbor:m', { apiBase }).call({ prompt: 'hi' })
    await expect(call).rejects.toMatchObject({ name: 'LMError', status: 404 })
    await expect(call).rejects.toThrow(/openai\/arbor:m at http:.* failed with status 404: .*no such model/)
  })

  it('says when nobody is there', async () => {
    const lm = new LM('openai/arbor:m', { apiBase: 'http://127.0.0.1:9/v1', numRetries: 0 })
    await expect(lm.call({ prompt: 'hi' })).rejects.toThrow(/Is the server running/)
    await expect(lm.call({ prompt: 'hi' })).rejects.toThrow(LMError)
  })

  it('is aborted with the reason given', async () => {
    const { apiBase } = await serve('hang')
    const stop = new AbortController()
    const call = new LM('openai/arbor:m', { apiBase }).call({ prompt: 'hi', signal: stop.signal })
    setTimeout(() => stop.abort(new Error('enough')), 50)
    await expect(call).rejects.toThrow('enough')
  })

  it('copies with changes, and keeps its key to itself', async () => {
    const provider = {}
    const lm = new LM('openai/arbor:m', { apiBase: 'http://x/v1', apiKey: 'SECRET', temperature: 0.3, maxTokens: 99, provider })
    const copy = lm.copy({ model: 'openai/arbor:job-1', temperature: 1 })
    expect(copy).toMatchObject({
      model: 'openai/arbor:job-1',
      provider,
      apiBase: 'http://x/v1',
      options: { temperature: 1, maxTokens: 99 },
    })
    expect(copy.history).toEqual([])
    expect(lm.dumpState()).toEqual({
      _dspy_lm_class: 'dspy.clients.lm.LM',
      model: 'openai/arbor:m',
      model_type: 'chat',
      cache: false, // a model that is trained is asked anew
      num_retries: 3,
      temperature: 0.3,
      max_tokens: 99,
      api_base: 'http://x/v1',
      finetuning_model: null,
      launch_kwargs: {},
      train_kwargs: {},
    })
    expect(JSON.stringify(lm)).not.toContain('SECRET')
  })

  it('keeps a bounded history', async () => {
    const { apiBase } = await serve(completion('x'))
    const lm = new LM('openai/arbor:m', { apiBase })
    lm.maxHistory = 2
    for (const prompt of ['1', '2', '3']) await lm.call({ prompt })
    expect(lm.history.map((entry) => entry.messages[0]!.content)).toEqual(['2', '3'])
  })

  it('refuses a call without a message, and a model without a name', async () => {
    await expect(new LM('m').call({})).rejects.toThrow('needs `messages` or a `prompt`')
    expect(() => new LM('')).toThrow(OptionError)
  })
})

describe('the request in an error', () => {
  const busy = { status: 503, headers: { 'retry-after-ms': '1' }, body: { error: { message: 'busy' } } }

  it('says how often and how long it was tried, and what the last message was', async () => {
    const { apiBase, bodies } = await serve(busy)
    const prompt = `What is ${'very '.repeat(30)}long?`
    const call = new LM('openai/arbor:m', { apiBase, numRetries: 2 }).call({ prompt })
    await expect(call).rejects.toThrow(
      /^The call of openai\/arbor:m at http:.* failed with status 503: .*busy\. 3 attempts in \d\.\d s; the last message begins "What is very very .{20,50}…"\.$/,
    )
    expect(bodies).toHaveLength(3)
  })

  it('tells of a wait that was too long, after it was repeated', async () => {
    const { apiBase, bodies } = await serve('hang')
    const call = new LM('openai/arbor:m', { apiBase, numRetries: 1, timeoutMs: 60 }).call({ prompt: 'hi' })
    await expect(call).rejects.toThrow(
      /timed out\. 2 attempts in .* the last message begins "hi"\. No answer came within timeoutMs \(60\)/,
    )
    expect(bodies).toHaveLength(2)
  })
})

describe('an answer that was cut off', () => {
  it('is told of, with the limit', async () => {
    const { apiBase } = await serve(completion('x', 'y'))
    const warnings: string[] = []
    const ask = () => new LM('openai/arbor:m', { apiBase, maxTokens: 7 }).call({ prompt: 'hi' })
    await context({ onWarning: (text) => warnings.push(text) }, ask)
    expect(warnings).toEqual([expect.stringMatching(/^An answer of openai\/arbor:m was cut off at maxTokens \(7\)\. Give more/)])
  })
})

describe('a streamed call', () => {
  const chunk = (delta: object, finish_reason: string | null = null, usage: object | null = null) => ({
    id: 'c1',
    object: 'chat.completion.chunk',
    model: 'arbor:m',
    choices: usage ? [] : [{ index: 0, delta, finish_reason }],
    usage,
  })
  const usage = { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 }

  it('tells the text as it comes, and answers as any other', async () => {
    const stream = [
      chunk({ role: 'assistant', content: '' }),
      chunk({ content: 'He' }),
      chunk({ content: 'llo' }),
      chunk({}, 'stop'),
    ]
    const { apiBase, bodies } = await serve({ stream: [...stream, chunk({}, null, usage)] })
    const heard: string[] = []
    const response = await new LM('openai/arbor:m', { apiBase }).call({ prompt: 'hi', onText: (text) => void heard.push(text) })
    expect(heard).toEqual(['He', 'llo'])
    expect(response).toEqual({
      id: 'c1',
      model: 'arbor:m',
      outputs: [{ text: 'Hello', completionId: 'c1#0', finishReason: 'stop' }],
      usage: { promptTokens: 3, completionTokens: 2, totalTokens: 5 },
    })
    expect(bodies[0]).toMatchObject({ stream: true, stream_options: { include_usage: true } })
  })
})

describe('the cache', () => {
  let folder = ''
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'arbor-lm-cache-'))
    configureCache({ folder })
  })
  afterEach(() => {
    configureCache({})
    rmSync(folder, { recursive: true, force: true })
  })

  it('answers a request that was made before, at no cost, and asks anew for another rollout id', async () => {
    const { apiBase, bodies } = await serve(completion('x'), completion('y'))
    const lm = new LM('openai/m', { apiBase, cache: true, temperature: 1 })
    const ask = async (options = {}) => (await lm.call({ prompt: 'hi', ...options })).outputs[0]!.text
    expect([await ask(), await ask(), await ask({ rolloutId: 1 }), await ask({ rolloutId: 1 }), await ask()]).toEqual([
      'x',
      'x',
      'y',
      'y',
      'x',
    ])
    expect(bodies).toHaveLength(2)
    expect(lm.history.map((entry) => [entry.cacheHit, entry.usage.totalTokens])).toEqual([
      [false, 7],
      [true, 0],
      [false, 7],
      [true, 0],
      [true, 0],
    ])
  })

  it('tells messages, options and models apart, but not addresses and keys', async () => {
    const { apiBase, bodies } = await serve(completion('x'))
    const lm = new LM('openai/m', { apiBase, cache: true })
    await lm.call({ prompt: 'hi' })
    await lm.call({ prompt: 'ho' })
    await lm.call({ prompt: 'hi', seed: 1 })
    await lm.copy({ model: 'openai/n' }).call({ prompt: 'hi' })
    await lm.copy({ apiBase: `${apiBase}/`, apiKey: 'k' }).call({ prompt: 'hi' })
    expect(bodies).toHaveLength(4)
  })

  it('is off for models that are trained or stand on this machine, and per call', async () => {
    const { apiBase, bodies } = await serve(completion('x'))
    expect(new LM('openai/gpt-4o-mini').cache).toBe(true)
    expect(new LM('openai/gpt-4o-mini', { provider: {} }).cache).toBe(false)
    const lm = new LM('openai/m', { apiBase })
    expect(lm.cache).toBe(false)
    for (const cache of [true, true, false]) await lm.call({ prompt: 'hi', cache })
    expect(bodies).toHaveLength(2)
    expect(bodies[0]).not.toHaveProperty('cache')
  })

  it('keeps no failure', async () => {
    const { apiBase, bodies } = await serve({ status: 404, body: { error: { message: 'no' } } }, completion('x'))
    const lm = new LM('openai/m', { apiBase, cache: true })
    await expect(lm.call({ prompt: 'hi' })).rejects.toThrow(LMError)
    expect((await lm.call({ prompt: 'hi' })).outputs[0]!.text).toBe('x')
    expect(bodies).toHaveLength(2)
  })
})
