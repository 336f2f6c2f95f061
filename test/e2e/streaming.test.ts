// A program's fields come piece by piece from the real server, and add up to the answer; what it took is counted.

import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { DEFAULT_MODEL } from '../../src/engine/bundled-models'
import type { ServerInfo } from '../../src/optimize'
import { ChainOfThought, context, LM, type StreamChunk, streamify, trackUsage } from '../../src/program'
import { serve, whyNot } from './tiny'

let missing: string | null
let server: ServerInfo
beforeAll(async () => {
  missing = await whyNot()
  if (missing === null) server = await serve({ model: DEFAULT_MODEL })
}, 120_000)
afterAll(() => server?.close())
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))

it('streams the fields of a chain of thought', async () => {
  const lm = new LM(`openai/arbor:${DEFAULT_MODEL}`, { apiBase: server.baseUrl, temperature: 0, maxTokens: 96, seed: 1 })
  const question = 'What is the capital of France?'
  const plain = await context({ lm }, () => new ChainOfThought('question -> answer').call({ question }))
  const { result, usage } = await trackUsage(() =>
    context({ lm }, async () => {
      const stream = streamify(new ChainOfThought('question -> answer'))({ question })
      const chunks: StreamChunk[] = []
      for await (const chunk of stream) chunks.push(chunk)
      return { chunks, prediction: await stream.prediction }
    }),
  )
  const textOf = (field: string) =>
    result.chunks
      .filter((chunk) => chunk.field === field)
      .map(({ chunk }) => chunk)
      .join('')
  expect(result.prediction.toDict()).toEqual(plain.toDict())
  expect({ reasoning: textOf('reasoning'), answer: textOf('answer') }).toEqual(plain.toDict())
  expect(result.chunks.length).toBeGreaterThan(4)
  expect(usage[lm.model]!.completionTokens).toBeGreaterThan(4)
  expect(String(lm.inspectHistory())).toContain(question)
})
