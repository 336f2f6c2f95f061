// Models of the other shapes that we write: llama.cpp goes on as we do. A Llama with Llama 3's rope (a table in the file), a head of its own and
// an adapter folded in; a Qwen2 with biases. Random weights of 64 columns, 256 tokens.

import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { Completion } from '../../src/engine/engine'
import { writeGguf } from '../../src/engine/gguf-writer'
import { LocalEngine } from '../../src/engine/local-engine'
import { openPolicyAsModel } from '../../src/engine/policy-as-model'
import { ggufVocabulary, type TokenizerFiles } from '../../src/export/gguf-vocabulary'
import { freshFolder, whyNot } from '../e2e/tiny'
import { golden, PEFT_ADAPTER } from '../engine/written-model'
import { modelFolder } from './data'
import { has, noPeers, python, SLOW } from './python'

const PROMPT = [17, 4, 200, 9, 33, 81, 5, 77, 150]
const LENGTH = 24
const SHAPES = { llama: PEFT_ADAPTER, qwen2: null } as const
type Shape = keyof typeof SHAPES

const folder = freshFolder()
let missing: string | null
let ours: Record<Shape, Completion>
let theirs: Record<Shape, { readonly id: number; readonly logprob: number }[]>
beforeAll(async () => {
  missing = noPeers() ?? (has('xllamacpp') ? await whyNot() : 'no wheel of llama.cpp for this machine')
  if (missing !== null) return
  const files = { llama: await written('llama'), qwen2: await written('qwen2') }
  ours = { llama: await greedy('llama', files.llama), qwen2: await greedy('qwen2', files.qwen2) }
  theirs = await python('llama.py', { files, prompt: PROMPT, length: LENGTH })
}, SLOW)
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** arbor-tiny's first 256 tokens stand for the model's: nothing is split here. */
function letters(): TokenizerFiles {
  const tokenizer = JSON.parse(readFileSync(join(modelFolder(), 'tokenizer.json'), 'utf8')) as { model: { vocab: object } }
  const vocab = Object.fromEntries(Object.entries(tokenizer.model.vocab).filter(([, id]) => (id as number) < 256))
  const model = { ...tokenizer.model, vocab, merges: [] }
  return { tokenizer: { ...tokenizer, model }, config: { eos_token: '<|im_end|>' }, chatTemplate: null }
}

async function written(shape: Shape): Promise<string> {
  const path = join(folder, `${shape}.gguf`)
  const open = await openPolicyAsModel(golden(shape), SHAPES[shape])
  writeGguf(path, { ...open, name: shape, vocabulary: ggufVocabulary(letters(), open.config, shape) }, 'f32')
  open.weights.close()
  return path
}

async function greedy(name: string, path: string): Promise<Completion> {
  const engine = new LocalEngine({ device: 'cpu', precision: 'f32' })
  await engine.load({ name, kind: 'gguf', path })
  const sampling = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 }
  const asked = { policy: null, prompt: PROMPT, seeds: [0], maxNewTokens: LENGTH, sampling, stopTokenIds: [2] }
  const [completion] = await engine.generate(asked)
  await engine.close()
  return completion!
}

describe('llama.cpp', () => {
  it.each(['llama', 'qwen2'] as const)('goes on as we do with a %s, every logprob within 2e-4', (shape) => {
    const { tokens, plainLogprobs } = ours[shape]
    expect(theirs[shape].length).toBeGreaterThan(LENGTH / 2)
    let at = -1
    for (const { id, logprob } of theirs[shape]) {
      at = tokens.indexOf(id, at + 1) // it leaves out tokens that end within a character
      expect(at).toBeGreaterThanOrEqual(0)
      expect(Math.abs(logprob - plainLogprobs[at]!)).toBeLessThan(2e-4)
    }
  })
})
