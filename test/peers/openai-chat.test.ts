// openai-python on chat and text completions of our server, with the model that ships. That answers in JSON fit their schemas, Python's jsonschema and
// pydantic have judged by then: arbor-tiny never wrote JSON.

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { ServerInfo } from '../../src/optimize'
import { serve, whyNot } from '../e2e/tiny'
import { MODEL_NAME } from './data'
import { noPeers, python, SLOW } from './python'

interface Token {
  readonly token: string
  readonly logprob: number
  readonly bytes: number[] | null
  readonly top: readonly (readonly [string, number])[]
}

interface Failure {
  readonly type: string
  readonly status: number
  readonly body: { readonly code: string; readonly param: string | null; readonly message: string }
}

interface TextChoice {
  readonly index: number
  readonly text: string
  readonly finish_reason: string
  readonly logprobs: {
    tokens: string[]
    token_logprobs: (number | null)[]
    top_logprobs: (Record<string, number> | null)[]
    text_offset: number[]
  }
}

interface Usage {
  readonly prompt_tokens: number
  readonly completion_tokens: number
  readonly total_tokens: number
}

interface Answer {
  readonly chat: {
    readonly greedy: { choices: { message: { content: string }; finish_reason: string }[]; usage: Usage; model: string }
    readonly twice: boolean
    readonly seeds: boolean
    readonly different: number
    readonly likeliest: boolean
    readonly stopped: boolean
    readonly cut: string
    readonly logprobs: Token[]
    readonly top_p: number
  }
  readonly stream: { chat: string; chat_chunks: number; chat_usage: Usage; text: string; text_usage: Usage; reasons: string[] }
  readonly text: {
    readonly both: { choices: TextChoice[]; usage: Usage }
    readonly alone: string[]
    readonly tokens: number
    readonly echoed: { choices: TextChoice[] }
    readonly from_tokens: number
    readonly sixteen: number
  }
  readonly json: Record<string, [string, string][]>
  readonly left: { ran: number; running: number; waiting: number }
  readonly errors: Record<string, Failure | null>
}

const SCHEMAS = {
  'nested objects': {
    type: 'object',
    properties: {
      'a "quoted" key': {
        type: 'object',
        properties: { b: { type: 'object', properties: { c: { type: 'null' } }, required: ['c'] } },
        required: ['b'],
      },
      'schlüssel\n': { type: 'boolean' },
    },
    required: ['a "quoted" key', 'schlüssel\n'],
    additionalProperties: false,
  },
  arrays: {
    type: 'array',
    items: { type: 'array', items: { type: 'integer', minimum: -9, maximum: 99 }, minItems: 1, maxItems: 3 },
    minItems: 2,
    maxItems: 4,
  },
  enums: { enum: ['red', 'green "light"', 'bläu\\', 17, null, { deep: [true] }] },
  numbers: {
    type: 'object',
    properties: {
      any: { type: 'number' },
      share: { type: 'number', minimum: 0, maximum: 1 },
      year: { type: 'integer', minimum: 1000, maximum: 2030 },
    },
    required: ['any', 'share', 'year'],
  },
  strings: { type: 'array', items: { type: 'string', minLength: 1, maxLength: 6 }, minItems: 3, maxItems: 3 },
  patterns: {
    type: 'object',
    properties: {
      code: { type: 'string', pattern: '^[A-Z]{2}-\\d{3}("|\\\\)?$' },
      day: { type: 'string', format: 'date' },
      at: { type: 'string', format: 'ipv4' },
    },
    required: ['code', 'day', 'at'],
  },
  unions: {
    anyOf: [
      {
        type: 'object',
        properties: { kind: { const: 'circle' }, radius: { type: 'number', exclusiveMinimum: 0 } },
        required: ['kind', 'radius'],
      },
      {
        type: 'object',
        properties: { kind: { const: 'box' }, sides: { type: 'array', items: { type: 'integer' }, minItems: 2, maxItems: 2 } },
        required: ['kind', 'sides'],
      },
      { type: 'null' },
    ],
  },
  optional: {
    type: 'object',
    properties: { a: { type: 'integer' }, b: { type: ['string', 'null'], maxLength: 4 }, c: { type: 'boolean' } },
    required: ['b'],
  },
  dictionary: { type: 'object', additionalProperties: { type: 'integer' } },
  recursion: {
    $ref: '#/$defs/node',
    $defs: {
      node: {
        type: 'object',
        properties: { v: { type: 'integer' }, next: { anyOf: [{ $ref: '#/$defs/node' }, { type: 'null' }] } },
        required: ['v', 'next'],
      },
    },
  },
}

let missing: string | null
let server: ServerInfo
let answer: Answer
beforeAll(async () => {
  missing = noPeers() ?? (await whyNot())
  if (missing !== null) return
  server = await serve({ model: MODEL_NAME })
  answer = await python<Answer>('openai_chat.py', { base_url: server.baseUrl, model: MODEL_NAME, schemas: SCHEMAS })
}, SLOW)
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))
afterAll(() => server?.close())

describe('chat completions for openai-python', () => {
  it('are the same for the same seed, and at temperature 0; top_k 1 is the likeliest; stop lists and limits cut', () => {
    const { greedy, twice, seeds, different, likeliest, stopped, cut, top_p } = answer.chat
    expect(greedy.choices[0]!.message.content.length).toBeGreaterThan(5)
    expect({ twice, seeds, likeliest, stopped, cut, top_p }).toEqual({
      twice: true,
      seeds: true,
      likeliest: true,
      stopped: true,
      cut: 'length',
      top_p: 2,
    })
    expect(different).toBeGreaterThan(1)
    expect(greedy.usage.total_tokens).toBe(greedy.usage.prompt_tokens + greedy.usage.completion_tokens)
  })

  it('carry logprobs: the tokens make up the text, the likeliest is the one taken, and alternatives follow in order', () => {
    const { logprobs, greedy } = answer.chat
    expect(logprobs.map(({ token }) => token).join('')).toBe(greedy.choices[0]!.message.content)
    for (const { token, logprob, top, bytes } of logprobs) {
      expect(top).toHaveLength(3)
      expect(top[0]![0]).toBe(token)
      expect(top[0]![1]).toBeCloseTo(logprob, 5)
      expect([...top].sort((a, b) => b[1] - a[1])).toEqual(top)
      expect(bytes).toEqual([...Buffer.from(token)])
    }
  })

  it('stream the text that comes whole, with usage in the last chunk', () => {
    const { chat, chat_chunks, chat_usage } = answer.stream
    expect(chat).toBe(answer.chat.greedy.choices[0]!.message.content)
    expect(chat_usage).toEqual(answer.chat.greedy.usage)
    expect(chat_chunks).toBeGreaterThan(4)
  })

  it('free their slots when the client goes away, in a stream or before the answer', () => {
    expect(answer.left).toEqual({ ran: expect.any(Number), running: 0, waiting: 0 })
    expect(answer.left.ran).toBeGreaterThan(0)
  })

  it("come back as openai-python's own errors where something is wrong", () => {
    const { model, field, schema, penalty, context, prompt } = answer.errors
    expect(model).toMatchObject({ type: 'NotFoundError', body: { code: 'model_not_found', param: 'model' } })
    expect(field).toMatchObject({ type: 'UnprocessableEntityError', body: { param: 'temperature' } })
    expect(schema).toMatchObject({ type: 'BadRequestError', body: { code: 'invalid_json_schema' } })
    expect(penalty).toMatchObject({ type: 'BadRequestError', body: { param: 'frequency_penalty' } })
    expect(context).toMatchObject({ type: 'BadRequestError', body: { code: 'context_length_exceeded' } })
    expect(prompt).toMatchObject({ type: 'BadRequestError', body: { param: 'prompt' } })
  })
})

describe('text completions for openai-python', () => {
  it('of several prompts are those of each alone, with their logprobs', () => {
    const { both, alone } = answer.text
    expect(both.choices.map(({ index, text }) => [index, text])).toEqual([0, 1, 2, 3].map((index) => [index, alone[index >> 1]]))
    for (const { text, logprobs } of both.choices) {
      expect(logprobs.tokens.join('')).toBe(text)
      expect(logprobs.text_offset).toEqual(logprobs.tokens.map((_, i) => logprobs.tokens.slice(0, i).join('').length))
      for (const [i, token] of logprobs.tokens.entries())
        expect(logprobs.top_logprobs[i]![token]).toBeCloseTo(logprobs.token_logprobs[i]!, 6)
    }
  })

  it('echo the prompt, take tokens, stop after sixteen, and stream', () => {
    const { echoed, tokens, from_tokens, sixteen, alone } = answer.text
    const { text, logprobs } = echoed.choices[0]!
    expect(text.startsWith('The capital of Norway is')).toBe(true)
    expect(logprobs.tokens).toHaveLength(tokens + 2)
    expect(logprobs.token_logprobs[0]).toBeNull()
    expect(logprobs.token_logprobs.slice(1).every((one) => one! < 0)).toBe(true)
    expect(from_tokens).toBe(4)
    expect(sixteen).toBeLessThanOrEqual(16)
    expect(answer.stream.text.startsWith(alone[0]!)).toBe(true)
    expect(answer.stream.text_usage.prompt_tokens).toBe(tokens)
    expect(answer.stream.reasons).toHaveLength(1)
  })
})

describe('answers in JSON for openai-python', () => {
  it('fit every schema, as jsonschema and pydantic see it, and end by themselves', () => {
    const names = [...Object.keys(SCHEMAS), 'pydantic', 'object']
    expect(Object.keys(answer.json).sort()).toEqual(names.sort())
    for (const name of names) {
      expect([name, new Set(answer.json[name]!.map(([reason]) => reason))]).toEqual([name, new Set(['stop'])])
      if (name !== 'object') expect([name, new Set(answer.json[name]!.map(([, text]) => text)).size > 1]).toEqual([name, true])
    }
  })
})
