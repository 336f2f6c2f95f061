import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { AdapterParseError, LMError } from '../errors'
import type { LMOptions } from './base-lm'
import { ChatAdapter } from './chat-adapter'
import { context } from './context'
import { DummyLM } from './dummy-lm'
import { JSONAdapter } from './json-adapter'
import { TypeMismatch } from './parse-value'
import { Predict } from './predict'
import { Signature, type SignatureSource } from './signature'

const adapter = new JSONAdapter()
const signature = new Signature('question -> answer: int, tags: list[str]')

/** A dummy whose service takes `responseFormat`. */
class CapableLM extends DummyLM {
  schemas = true
  override get supportsResponseFormat(): boolean {
    return true
  }
  override get supportsResponseSchema(): boolean {
    return this.schemas
  }
  get formats(): (LMOptions['responseFormat'] | undefined)[] {
    return this.history.map(({ options }) => options.responseFormat)
  }
}

const ask = (lm: DummyLM, source: SignatureSource = 'question -> answer: int, tags: list[str]') =>
  context({ lm, adapter }, () => new Predict(source).call({ question: 'q' }))

describe('JSONAdapter', () => {
  it('reads back what it writes', () => {
    const outputs = { answer: 3, tags: ['a', 'ü'] }
    const { messages } = adapter.formatFinetuneData(signature, [], { question: 'q' }, outputs)
    expect(messages.at(-1)!.content).toBe('{\n  "answer": 3,\n  "tags": [\n    "a",\n    "ü"\n  ]\n}')
    expect(adapter.parse(signature, messages.at(-1)!.content)).toEqual(outputs)
  })

  it('finds the object in prose and in balanced braces, and keeps what it found', () => {
    expect(adapter.parse(signature, 'Here: {"answer": "3", "tags": ["x"], "more": 1}. Bye')).toEqual({ answer: 3, tags: ['x'] })
    expect(adapter.parse(signature, '[{"answer": 3, "tags": []}]')).toEqual({ answer: 3, tags: [] })
    expect(adapter.tryParse(signature, '{"answer": 3}')).toMatchObject({ partial: { answer: 3 }, issues: [{ field: 'tags' }] })
  })

  it('names the field and the value of a wrong type, and keeps the cause', () => {
    const { issues, error } = adapter.tryParse(signature, '{"answer": "many", "tags": []}') as {
      issues: readonly { field: string }[]
      error: AdapterParseError
    }
    expect(issues[0]!.field).toBe('answer')
    expect(error.message).toContain('Failed to parse field answer with value many')
    expect(error.cause).toBeInstanceOf(TypeMismatch)
  })

  it('tells of an answer that is nested without end as of any other that cannot be read', async () => {
    const lm = new DummyLM(['['.repeat(100_000)])
    await expect(ask(lm)).rejects.toThrow(/LM response|nested too deeply/)
    await expect(ask(new DummyLM([`{"tags": ${'['.repeat(50_000)}${']'.repeat(50_000)}, "answer": 1}`]))).rejects.toThrow(
      AdapterParseError,
    )
  })

  it('asks for the schema of the outputs, and once more in plain JSON when that brings nothing', async () => {
    const lm = new CapableLM(['junk', '{"answer": 1, "tags": []}'])
    expect(await ask(lm)).toMatchObject({ answer: 1 })
    expect(lm.formats).toEqual([
      {
        type: 'json_schema',
        json_schema: {
          name: 'DSPyProgramOutputs',
          strict: true,
          schema: {
            type: 'object',
            title: 'DSPyProgramOutputs',
            properties: {
              answer: { type: 'integer', title: 'Answer' },
              tags: { type: 'array', items: { type: 'string' }, title: 'Tags' },
            },
            required: ['answer', 'tags'],
            additionalProperties: false,
          },
        },
      },
      { type: 'json_object' },
    ])
  })

  it('asks for plain JSON where schemas or the outputs do not allow more, and for nothing where the service takes nothing', async () => {
    const plain = new CapableLM(['{"answer": 1, "tags": []}'])
    plain.schemas = false
    await ask(plain)
    const open = new CapableLM(['{"scores": {"a": 1}}'])
    await ask(open, 'question -> scores: dict[str, int]')
    const none = new DummyLM(['{"answer": 1, "tags": []}'])
    await ask(none)
    expect([...plain.formats, ...open.formats]).toEqual([{ type: 'json_object' }, { type: 'json_object' }])
    expect(none.history[0]!.options.responseFormat).toBeUndefined()
  })

  it('closes nested objects in the schema', async () => {
    const lm = new CapableLM(['{"who": {"name": "A", "email": null}}'])
    const person = z.object({ name: z.string(), email: z.string().nullable() }).meta({ title: 'Person' })
    await ask(lm, { inputs: { question: z.string() }, outputs: { who: person } })
    const format = lm.formats[0] as unknown as { json_schema: { schema: { $defs: Record<string, unknown> } } }
    expect(format.json_schema.schema.$defs.Person).toMatchObject({ required: ['name', 'email'], additionalProperties: false })
  })
})

describe('the second call in JSON', () => {
  const chat = new ChatAdapter()

  it('is made when an answer has not the fields, and its error is the one that is told', async () => {
    const lm = new DummyLM(['junk', 'junk {x}'])
    await expect(context({ lm, adapter: chat }, () => new Predict('q -> a').call({ q: 'x' }))).rejects.toThrow(
      /Adapter JSONAdapter failed to parse the LM response/,
    )
    expect(lm.history).toHaveLength(2)
  })

  it('names what could not be read first as the cause, whatever fails in the second', async () => {
    const [chatAnswer, json] = ['[[ ## a ## ]]\nmany', '{"b": 1}']
    for (const lm of [new DummyLM([chatAnswer, json]), new DummyLM([chatAnswer])]) {
      const call = context({ lm, adapter: chat }, () => new Predict('q -> a: int').call({ q: 'x' }))
      await expect(call).rejects.toMatchObject({ cause: { adapterName: 'ChatAdapter', raw: chatAnswer } })
    }
  })

  it("is not made for the model's own errors, nor where it is switched off, nor after an abort", async () => {
    const failing = new DummyLM([new LMError('503'), '{"a": "x"}'])
    await expect(context({ lm: failing, adapter: chat }, () => new Predict('q -> a').call({ q: 'x' }))).rejects.toThrow('503')
    const junk = new DummyLM(['junk', '{"a": "x"}'])
    const settings = { lm: junk, adapter: chat, adapterFallback: false }
    await expect(context(settings, () => new Predict('q -> a').call({ q: 'x' }))).rejects.toThrow(AdapterParseError)
    expect(junk.history).toHaveLength(1)
    const stop = new AbortController()
    let calls = 0
    const aborting = new DummyLM(() => {
      calls++
      stop.abort(new Error('stopped'))
      return new Error('the connection was closed')
    })
    const stopped = { lm: aborting, adapter: chat, signal: stop.signal }
    await expect(context(stopped, () => new Predict('q -> a').call({ q: 'x' }))).rejects.toThrow()
    expect(calls).toBe(1)
  })
})
