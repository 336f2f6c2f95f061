// The whole road of a real model, from the GGUF file to tokens, against transformers on the same file (test/golden/gguf/smollm2.json).
// Needs the fetched model and the native library: without either it is skipped, since TensorFlow.js takes half a minute for it.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { LocalEngine } from './local-engine'
import { cachedModel } from './model-cache'
import { nativeStatus } from './ops/build-native'
import { openBackend } from './ops/open-backend'

interface Truth {
  readonly prompt: string
  readonly ids: number[]
  readonly greedy: number[]
  readonly promptLogprobs: number[]
}

const truths: Truth[] = JSON.parse(readFileSync(join(__dirname, '../../test/golden/gguf/smollm2.json'), 'utf8')).logits

describe('SmolLM2-135M-Instruct', () => {
  let engine: LocalEngine | null = null
  beforeAll(async () => {
    const model = cachedModel('HuggingFaceTB/SmolLM2-135M-Instruct')
    if (model?.kind !== 'gguf' || !(await nativeStatus()).found) return
    engine = new LocalEngine({ backend: await openBackend('cpu'), kvCacheTokens: 1024 })
    await engine.load(model)
  }, 60_000)
  afterAll(() => engine?.close())

  it.for(truths)('$prompt: logprobs and the greedy answer are those of transformers', async (truth, { skip }) => {
    if (!engine) return skip('needs the fetched GGUF model and the native library')
    const { ids, greedy, promptLogprobs } = truth
    const sequence = { prompt: ids.slice(0, 1), completion: ids.slice(1) }
    const [stats] = await engine.logprobs(null, [sequence], { temperature: 1 })
    const differences = promptLogprobs.map((value, i) => Math.abs(stats!.logprobs[i]! - value))
    expect(Math.max(...differences)).toBeLessThan(5e-4)
    const sampling = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 }
    const request = { policy: null, prompt: ids, seeds: [0], maxNewTokens: 12, sampling, stopTokenIds: [2] }
    const [completion] = await engine.generate(request)
    expect(completion!.tokens).toEqual(greedy.slice(0, 12))
  })
})
