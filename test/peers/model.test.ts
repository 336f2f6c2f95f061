// The folder of the model that ships, as transformers reads it: configuration, tensors, tokenizer; with torch also what it computes.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { TrainSequence } from '../../src/engine/engine'
import { LocalEngine } from '../../src/engine/local-engine'
import { modelConfig } from '../../src/engine/model-config'
import { ChatAdapter } from '../../src/program'
import { renderChat } from '../../src/server/chat-template'
import { loadTokenizer, type Tokenizer } from '../../src/server/tokenizer'
import { whyNot } from '../e2e/tiny'
import { demoSets, MODEL_NAME, modelFolder, predictorOf, type Row, testRows } from './data'
import { noPeers, python, SLOW } from './python'

interface Answer {
  readonly config: Record<string, unknown>
  readonly tensors: Record<string, { readonly dtype: string; readonly shape: number[] }>
  readonly tokenizer: {
    readonly vocab: number
    readonly eos: string
    readonly pad: string
    readonly special: Record<string, number>
  }
  /** Each text's token ids, and those decoded again. */
  readonly texts: { readonly ids: number[]; readonly text: string }[]
  /** In float32, of every completion token; null without torch. */
  readonly statistics: { readonly logprobs: number[]; readonly entropies: number[] }[] | null
}

/** Text that data sets don't hold: the tokenizer is byte-level, so nothing may be lost. */
const ODD_TEXTS = ['', ' ', '\n\n', 'Ünïcode: 東京, 🙂, \u00a0nbsp', "it's 3.14159 or 1,000,000\ttabs", 'x'.repeat(300)]

let missing: string | null
let tokenizer: Tokenizer
let texts: string[]
let sequences: TrainSequence[]
let theirs: Answer
const engine = new LocalEngine({ device: 'cpu', precision: 'f32' })
beforeAll(async () => {
  missing = noPeers() ?? (await whyNot())
  if (missing !== null) return
  const source = { name: MODEL_NAME, kind: 'folder', path: modelFolder() } as const
  tokenizer = await loadTokenizer(source)
  await engine.load(source)
  const rows = await testRows(100)
  texts = [...ODD_TEXTS, ...rows.map((row) => row.question)]
  sequences = await Promise.all(rows.slice(0, 12).map(conversation))
  theirs = await python<Answer>('model.py', { model: modelFolder(), texts, sequences })
}, SLOW)
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))
afterAll(() => engine.close())

/** A question with one demonstration, and an answer, as tokens. */
async function conversation({ question, answer }: Row): Promise<TrainSequence> {
  const adapter = new ChatAdapter()
  const { signature } = predictorOf('ChainOfThought')
  const messages = adapter.format(signature, (await demoSets()).one, { question })
  const completion = adapter.formatAssistantMessage(signature, { reasoning: `I think it is ${answer}.`, answer })
  return {
    prompt: tokenizer.encode(renderChat(tokenizer, messages, { addGenerationPrompt: true })),
    completion: tokenizer.encode(`${completion}<|im_end|>`),
  }
}

describe('AutoConfig', () => {
  it('reads the shape that the engine reads', () => {
    const file = JSON.parse(readFileSync(join(modelFolder(), 'config.json'), 'utf8')) as Record<string, unknown>
    const wanted = modelConfig(file, modelFolder())
    expect(theirs.config['model_type']).toBe(wanted.architecture)
    // transformers writes rope's base beside its type since version 5
    expect(theirs.config['rope_parameters']).toMatchObject({ rope_theta: wanted.ropeTheta, rope_type: 'default' })
    expect(theirs.config).toMatchObject({
      vocab_size: wanted.vocab,
      hidden_size: wanted.hidden,
      num_hidden_layers: wanted.layers,
      num_attention_heads: wanted.heads,
      num_key_value_heads: wanted.kvHeads,
      head_dim: wanted.headDim,
      intermediate_size: wanted.inner,
      rms_norm_eps: wanted.normEps,
      tie_word_embeddings: wanted.tiedHead,
      max_position_embeddings: wanted.contextLength,
      attention_bias: false,
      mlp_bias: false,
      hidden_act: 'silu',
    })
  })
})

describe('model.safetensors', () => {
  it('holds the tensors that a Llama of this shape has, in bf16', () => {
    const size = (key: string) => theirs.config[key] as number
    const [hidden, inner, vocab] = [size('hidden_size'), size('intermediate_size'), size('vocab_size')]
    const [q, kv] = ['num_attention_heads', 'num_key_value_heads'].map((key) => size(key) * size('head_dim')) as [number, number]
    const layer = {
      input_layernorm: [hidden],
      'self_attn.q_proj': [q, hidden],
      'self_attn.k_proj': [kv, hidden],
      'self_attn.v_proj': [kv, hidden],
      'self_attn.o_proj': [hidden, q],
      post_attention_layernorm: [hidden],
      'mlp.gate_proj': [inner, hidden],
      'mlp.up_proj': [inner, hidden],
      'mlp.down_proj': [hidden, inner],
    }
    const layers = Array.from({ length: size('num_hidden_layers') }, (_, i) =>
      Object.entries(layer).map(([name, shape]) => [`model.layers.${i}.${name}.weight`, shape] as const),
    )
    const wanted = [['model.embed_tokens.weight', [vocab, hidden]], ['model.norm.weight', [hidden]], ...layers.flat()] as const
    expect(theirs.tensors).toEqual(Object.fromEntries(wanted.map(([name, shape]) => [name, { dtype: 'BF16', shape }])))
  })
})

describe('AutoTokenizer', () => {
  it('has our vocabulary and our special tokens', () => {
    expect(theirs.tokenizer.vocab).toBe(tokenizer.vocab)
    expect(theirs.tokenizer.eos).toBe(tokenizer.namedTokens['eos_token'])
    expect(theirs.tokenizer.pad).toBe(tokenizer.namedTokens['pad_token'])
    for (const [text, id] of Object.entries(theirs.tokenizer.special)) expect(tokenizer.specialTokens.get(text)).toBe(id)
  })

  it('splits every text into our tokens and joins them to it again', () => {
    expect(texts.map((text) => tokenizer.encode(text))).toEqual(theirs.texts.map(({ ids }) => ids))
    expect(theirs.texts.map(({ text }) => text)).toEqual(texts)
    expect(theirs.texts.map(({ ids }) => tokenizer.decode(ids, { skipSpecial: false }))).toEqual(texts)
  })
})

describe('AutoModelForCausalLM', () => {
  it('computes our logprobs and entropies, within 1e-4 in f32', async ({ skip }) => {
    skip(
      theirs.statistics === null,
      'torch is not installed: no CPU build in this package index; ARBOR_PEERS_TORCH=1 npm test takes any',
    )
    const ours = await engine.logprobs(null, sequences, { temperature: 1 })
    const tokens = sequences.reduce((sum, { completion }) => sum + completion.length, 0)
    for (const kind of ['logprobs', 'entropies'] as const) {
      const [got, wanted] = [ours, theirs.statistics!].map((all) => all.flatMap((stats) => Array.from(stats[kind])))
      expect([got!.length, wanted!.length]).toEqual([tokens, tokens])
      expect(Math.max(...got!.map((value, i) => Math.abs(value - wanted![i]!)))).toBeLessThan(1e-4)
    }
  })
})
