import { describe, expect, expectTypeOf, it } from 'vitest'
import { AdapterParseError } from '../errors'
import type { Message } from '../protocol'
import type { Adapter } from './adapter'
import type { LMOptions, LMResponse } from './base-lm'
import { ChainOfThought } from './chain-of-thought'
import { ChatAdapter } from './chat-adapter'
import { context } from './context'
import { DummyLM } from './dummy-lm'
import { JSONAdapter } from './json-adapter'
import { Module } from './module'
import { Predict } from './predict'
import { type StreamChunk, streamify } from './stream'
import { type FieldPiece, fieldReader } from './stream-fields'
import { XMLAdapter } from './xml-adapter'

/** Streams its answer in pieces of so many characters. */
class StreamingLM extends DummyLM {
  constructor(
    answers: ConstructorParameters<typeof DummyLM>[0],
    readonly size = 1,
  ) {
    super(answers)
  }
  protected override async forward(
    messages: readonly Message[],
    options: LMOptions,
    signal?: AbortSignal,
    onText?: (text: string) => void,
  ): Promise<LMResponse> {
    const response = await super.forward(messages, options)
    const { text } = response.outputs[0]!
    for (let at = 0; at < text.length; at += this.size) {
      await new Promise((resolve) => setImmediate(resolve))
      signal?.throwIfAborted()
      onText?.(text.slice(at, at + this.size))
    }
    return response
  }
}

/** A completion read in pieces of every size gives the same fields: [name, text] in their order, each ended once. */
function readAll(adapter: Adapter, completion: string): [string, string][] {
  const results = [1, 2, 3, 7, 1000].map((size) => {
    const reader = fieldReader(adapter)!
    const pieces: FieldPiece[] = []
    for (let at = 0; at < completion.length; at += size) pieces.push(...reader.write(completion.slice(at, at + size)))
    pieces.push(...reader.end())
    const fields = new Map<string, string>()
    for (const { field, chunk } of pieces) fields.set(field, (fields.get(field) ?? '') + chunk)
    expect(pieces.filter((piece) => piece.isLast).map((piece) => piece.field)).toEqual([...fields.keys()])
    return [...fields]
  })
  for (const result of results) expect(result).toEqual(results[0])
  return results[0]!
}

describe('reading fields as they come', () => {
  it('finds the headers of the chat format, and what only looks like one', () => {
    const text =
      '[[ ## a ## ]]\n one [[ ## x\n[two] \n\n[[ ## unknown ## ]]\nu\n\n  [[ ## b ## ]] same line\n[[ ## a ## ]]\nagain\n[[ ## completed ## ]]\n'
    expect(readAll(new ChatAdapter(), text)).toEqual([
      ['a', 'one [[ ## x\n[two]'],
      ['unknown', 'u'],
      ['b', 'same line'],
      ['completed', ''],
    ])
    expect(readAll(new ChatAdapter(), 'no header [[ ## a ## ]] here')).toEqual([])
    expect(readAll(new ChatAdapter(), '[[ ## a ## ]]\ncut off [[ ##')).toEqual([['a', 'cut off [[ ##']])
  })

  it('finds the elements of XML, nested ones whole', () => {
    const text = '<a>\n1 &lt; 2 &amp; 3 &#65;\n</a>\n<b><item>x</item><item>y</item></b>'
    expect(readAll(new XMLAdapter(), text)).toEqual([
      ['a', '1 < 2 & 3 A'],
      ['b', '<item>x</item><item>y</item>'],
    ])
  })

  it('finds the members of a JSON object: text decoded, the rest as written', () => {
    const text = 'Sure: {"a": "l\\"i\\nn\\u00e9 \\ud83d\\ude00", "b": [1, {"c": "]}"}], "d": 3 , "e" : null}'
    expect(readAll(new JSONAdapter(), text)).toEqual([
      ['a', 'l"i\nné 😀'],
      ['b', '[1, {"c": "]}"}]'],
      ['d', '3'],
      ['e', 'null'],
    ])
  })

  it('tells what is sure at once', () => {
    const reader = fieldReader(new ChatAdapter())!
    expect(reader.write('[[ ## a ## ]]\nHello wor')).toEqual([{ field: 'a', chunk: 'Hello wor', isLast: false }])
    expect(reader.write('ld \n[[ ## comp')).toEqual([{ field: 'a', chunk: 'ld', isLast: false }])
    expect(reader.write('leted ## ]]')).toEqual([{ field: 'a', chunk: '', isLast: true }])
  })
})

class TwoSteps extends Module {
  think = new ChainOfThought('question -> answer')
  check = new Predict('question -> verdict')
  async forward({ question }: { question: string }) {
    await this.think.call({ question })
    return this.check.call({ question })
  }
}
const answers = (messages: readonly Message[]) =>
  messages[0]!.content.includes('verdict') ? { verdict: 'fine' } : { reasoning: 'because', answer: 'so it is' }

async function collect(stream: AsyncIterable<StreamChunk>): Promise<Record<string, string>> {
  const texts: Record<string, string> = {}
  for await (const { predictor, field, chunk } of stream)
    texts[`${predictor}.${field}`] = (texts[`${predictor}.${field}`] ?? '') + chunk
  return texts
}

describe('streamify', () => {
  it('tells every field of every predictor, and the prediction', async () => {
    const stream = context({ lm: new StreamingLM(answers) }, () => streamify(new TwoSteps())({ question: 'q' }))
    expect(await collect(stream)).toEqual({
      'think.predict.reasoning': 'because',
      'think.predict.answer': 'so it is',
      'check.verdict': 'fine',
    })
    const prediction = await stream.prediction
    expectTypeOf(prediction.verdict).toEqualTypeOf<string>()
    expect(prediction.verdict).toBe('fine')
  })

  it('tells the fields that are asked for, in chunks as they come', async () => {
    const settings = { lm: new StreamingLM(answers, 4) }
    const stream = context(settings, () => streamify(new TwoSteps(), { fields: ['answer'] })({ question: 'q' }))
    const chunks: StreamChunk[] = []
    for await (const chunk of stream) chunks.push(chunk)
    expect(chunks.length).toBeGreaterThan(2)
    expect(chunks.map(({ chunk }) => chunk).join('')).toBe('so it is')
    expect(chunks.map(({ isLast }) => isLast)).toEqual([...chunks.slice(1).map(() => false), true])
  })

  it('gives whole fields where the model does not stream, and each format its own', async () => {
    const stream = context({ lm: new DummyLM(answers) }, () =>
      streamify(new TwoSteps(), { fields: ['verdict'] })({ question: 'q' }),
    )
    expect(await collect(stream)).toEqual({ 'check.verdict': 'fine' })
    const lm = new StreamingLM(() => '{"answer": "yes"}')
    const json = context({ lm, adapter: new JSONAdapter() }, () =>
      streamify(new Predict('question -> answer'))({ question: 'q' }),
    )
    expect(await collect(json)).toEqual({ 'self.answer': 'yes' })
  })

  it('fails as the program fails, in the loop and in the prediction', async () => {
    const lm = new StreamingLM(() => 'nothing to read')
    const stream = context({ lm }, () => streamify(new Predict('question -> answer'))({ question: 'q' }))
    await expect(collect(stream)).rejects.toThrow(AdapterParseError)
    await expect(stream.prediction).rejects.toThrow(AdapterParseError)
  })

  it('aborts the program when the loop is left early', async () => {
    const lm = new StreamingLM(() => ({ answer: 'x'.repeat(500) }))
    const stream = context({ lm }, () => streamify(new Predict('question -> answer'))({ question: 'q' }))
    for await (const { chunk } of stream) if (chunk !== '') break
    await expect(stream.prediction).rejects.toThrow('The stream was left.')
  })

  it('refuses a field that no predictor has, or several', () => {
    class Same extends Module {
      one = new Predict('question -> answer')
      two = new Predict('question -> answer')
      forward({ question }: { question: string }) {
        return this.one.call({ question })
      }
    }
    expect(() => streamify(new TwoSteps(), { fields: ['nope'] })).toThrow(
      /No predictor .* 'nope'; there is reasoning of think.predict/,
    )
    expect(() => streamify(new Same(), { fields: ['answer'] })).toThrow(/Several predictors .*'one', 'two'/)
    expect(() => streamify(new Same(), { fields: [{ field: 'answer', predictor: 'two' }] })).not.toThrow()
  })
})
