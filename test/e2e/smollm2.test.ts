// The one run on a model of real size: SmolLM2-135M-Instruct out of a GGUF file, from its bits through its tokens and logprobs to two GRPO
// steps with XMLAdapter and demonstrations. The truth is transformers on the same file (test/golden/gguf/make.py).

import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { LocalEngine } from '../../src/engine/local-engine'
import { type ResolvedModel, resolveModel } from '../../src/engine/model-source'
import { openModel } from '../../src/engine/open-model'
import { openBackend } from '../../src/engine/ops/open-backend'
import { ArborGRPO, ArborProvider } from '../../src/optimize'
import { LoraConfig } from '../../src/optimize/lora-config'
import { ChainOfThought, context, type Example, LM, loadDemos, loadExamples, XMLAdapter } from '../../src/program'
import { renderChat } from '../../src/server/chat-template'
import { type RunningServer, startServer } from '../../src/server/main'
import { loadTokenizer } from '../../src/server/tokenizer'
import { freshFolder, ROOT, whyNot } from './tiny'

const NAME = 'HuggingFaceTB/SmolLM2-135M-Instruct'
const truth = JSON.parse(readFileSync(join(ROOT, 'test/golden/gguf/smollm2.json'), 'utf8'))

let missing: string | null = null
let model: ResolvedModel
let engine: LocalEngine
let server: RunningServer

beforeAll(async () => {
  missing = await whyNot()
  if (missing !== null) return
  try {
    model = await resolveModel(NAME)
  } catch (error) {
    missing = `${NAME} can't be had here: ${(error as Error).message}`
    return
  }
  engine = new LocalEngine({ backend: await openBackend('cpu', { precision: 'f32' }) }) // transformers' numbers are f32
  server = await startServer({ model: NAME, engine, port: 0, storage: freshFolder(), version: '0' })
}, 600_000)
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))
afterAll(() => server?.close())

describe('SmolLM2-135M-Instruct', () => {
  it('has the bits that transformers reads out of the GGUF file', async ({ skip }) => {
    skip(model.kind !== 'gguf', `the fetched files come from ${model.origin}; the vectors are of the GGUF file`)
    const { weights } = await openModel(model)
    for (const [name, { sha256 }] of Object.entries<{ sha256: string }>(truth.tensors))
      expect(
        createHash('sha256')
          .update(new Uint8Array(weights.read(name).buffer))
          .digest('hex'),
        name,
      ).toBe(sha256)
    weights.close()
  })

  it('has the ids and chat prompts that transformers makes', async () => {
    const tokenizer = await loadTokenizer(model)
    for (const { text, ids, decoded, skipped } of truth.encodings) {
      expect(tokenizer.encode(text), text).toEqual(ids)
      expect(tokenizer.decode(ids, { skipSpecial: false })).toBe(decoded)
      expect(tokenizer.decode(ids)).toBe(skipped)
    }
    for (const { messages, addGenerationPrompt, text } of truth.chats)
      expect(renderChat(tokenizer, messages, { addGenerationPrompt })).toBe(text)
  })

  it('gives the logprobs and the greedy answers of transformers', async ({ skip }) => {
    skip(model.kind !== 'gguf', `the fetched files come from ${model.origin}; the vectors are of the GGUF file`)
    const sampling = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 }
    for (const { prompt, ids, greedy, promptLogprobs } of truth.logits) {
      const sequence = { prompt: ids.slice(0, 1), completion: ids.slice(1) }
      const [stats] = await engine.logprobs(null, [sequence], { temperature: 1 })
      const differences = (promptLogprobs as number[]).map((value, i) => Math.abs(stats!.logprobs[i]! - value))
      expect(Math.max(...differences), prompt).toBeLessThan(5e-4)
      const request = { policy: null, prompt: ids, seeds: [0], maxNewTokens: 12, sampling, stopTokenIds: [2] }
      const [completion] = await engine.generate(request)
      expect(completion!.tokens, prompt).toEqual(greedy.slice(0, 12))
    }
  })

  it('trains: two steps with XMLAdapter and demonstrations, on the logprobs that were sampled', async () => {
    const program = new ChainOfThought('question -> answer')
    program.demos = await loadDemos('data/simple-qa')
    const { trainset } = await loadExamples('data/simple-qa', { inputs: ['question'] })
    const options = { provider: new ArborProvider(), apiBase: server.baseUrl, temperature: 1, maxTokens: 32 }
    const compiler = new ArborGRPO({
      metric: (example, prediction) => String(prediction['answer']).includes(String((example as Example)['answer'])),
      ...{ numDspyExamplesPerGrpoStep: 2, numRolloutsPerGrpoStep: 4, numTrainSteps: 2, excludeDemos: false, seed: 1 },
      trainKwargs: { learning_rate: 5e-4, temperature: 1, lora_config: new LoraConfig({ r: 16, lora_alpha: 32 }) },
    })
    await context({ lm: new LM(`openai/arbor:${NAME}`, options), adapter: new XMLAdapter() }, () =>
      compiler.compile(program, { trainset }),
    )
    const { records } = compiler.run!
    expect(records.map((record) => [record.step, record.rows_total, record.policy_version])).toEqual([
      [1, 8, 1],
      [2, 8, 2],
    ])
    expect(new Set(records.flatMap((record) => record.groups.flatMap((group) => group.sources)))).toEqual(new Set(['id']))
    for (const record of records) expect(record.logprob_gap_max).toBeLessThan(1e-4)
    // Demonstrations are in the prompt that all rows share: without the prefix tree every row would carry its own copy.
    const total = (key: 'tokens' | 'tokens_unshared') => records.reduce((sum, record) => sum + record[key]!, 0)
    expect(total('tokens_unshared')).toBeGreaterThan(1.5 * total('tokens'))
  }, 300_000)
})
