// The tokenizers that come with models here, as GGUF metadata, give the tokens that they give as tokenizer.json. That llama.cpp splits
// text in the same way is shown by test/peers/export.test.ts.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { GgufEntry } from '../engine/gguf-writer'
import type { ModelConfig } from '../engine/model-config'
import { openModel } from '../engine/open-model'
import { ModelError } from '../errors'
import { GGUF_FAMILIES, ggufTokenizer } from '../server/gguf-tokenizer'
import { ggufVocabulary, type TokenizerFiles } from './gguf-vocabulary'
import { tokenizerFiles } from './tokenizer-files'

const ROOT = join(__dirname, '../..')
const MODELS = ['data/models/arbor-tiny', 'test/fixtures/tiny-chat'] as const

async function opened(folder: string): Promise<{ files: TokenizerFiles; config: ModelConfig }> {
  const source = { name: folder, kind: 'folder', path: join(ROOT, folder) } as const
  const { config, weights } = await openModel(source)
  weights.close()
  return { files: await tokenizerFiles(source), config }
}

const values = (entries: Record<string, GgufEntry>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(entries).map(([key, { value }]) => [key, value]))

describe('a tokenizer as GGUF metadata', () => {
  it.each(MODELS)('%s: read back, it is the tokenizer that it was', async (folder) => {
    const { files, config } = await opened(folder)
    const metadata = values(ggufVocabulary(files, config, folder))
    const back = ggufTokenizer(metadata, folder)
    const model = files.tokenizer['model'] as { vocab: object; merges: (string | string[])[] }
    const merges = model.merges.map((merge) => (typeof merge === 'string' ? merge : merge.join(' ')))
    const special = (files.tokenizer['added_tokens'] as { content: string }[]).map(({ content }) => content)
    expect(back.tokenizer).toMatchObject({ model: { merges } })
    expect(back.tokenizer).toMatchObject({ added_tokens: special.map((content) => ({ content, special: true })) })
    expect((back.tokenizer as { model: { vocab: object } }).model.vocab).toMatchObject(model.vocab)
    expect(back.config).toMatchObject({ eos_token: files.config['eos_token'], chat_template: files.chatTemplate })
  })

  it('every way of cutting that is read can be written', async () => {
    const { files, config } = await opened('data/models/arbor-tiny')
    for (const [name, family] of Object.entries(GGUF_FAMILIES)) {
      const model = { ...(files.tokenizer['model'] as object), ignore_merges: family.ignoreMerges ?? false }
      const tokenizer = { ...files.tokenizer, model, pre_tokenizer: family.preTokenizer, normalizer: family.normalizer ?? null }
      expect(values(ggufVocabulary({ ...files, tokenizer }, config, 'x'))['tokenizer.ggml.pre']).toBe(name)
    }
  })

  it('tokens that the model has and the tokenizer has not are filled up, ends of turns go to their three places', async () => {
    const { files, config } = await opened('test/fixtures/tiny-chat')
    const wide = { ...config, vocab: config.vocab + 2, eosTokenIds: [2, 0] }
    const metadata = values(ggufVocabulary(files, wide, 'x'))
    expect((metadata['tokenizer.ggml.tokens'] as string[]).slice(-2)).toEqual([
      `[PAD${config.vocab}]`,
      `[PAD${config.vocab + 1}]`,
    ])
    expect((metadata['tokenizer.ggml.token_type'] as number[]).slice(-2)).toEqual([5, 5])
    expect((metadata['tokenizer.ggml.token_type'] as number[]).slice(0, 4)).toEqual([3, 3, 3, 1])
    expect(metadata).toMatchObject({ 'tokenizer.ggml.eos_token_id': 2, 'tokenizer.ggml.eot_token_id': 0 })
  })

  it('a BOS that the post-processor puts first is told', async () => {
    const { files, config } = await opened('test/fixtures/tiny-chat')
    const template = JSON.parse(readFileSync(join(ROOT, 'test/fixtures/tiny-chat/tokenizer.json'), 'utf8'))
    const first = {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '<|endoftext|>', type_id: 0 } }, { Sequence: {} }],
    }
    const tokenizer = { ...template, post_processor: { type: 'Sequence', processors: [first] } }
    const told = (given: TokenizerFiles) => values(ggufVocabulary(given, config, 'x'))['tokenizer.ggml.add_bos_token']
    expect([told(files), told({ ...files, tokenizer })]).toEqual([false, true])
  })

  it('what can not be told is refused with what can', async () => {
    const { files, config } = await opened('test/fixtures/tiny-chat')
    const write = (tokenizer: object) => () =>
      ggufVocabulary({ ...files, tokenizer: { ...files.tokenizer, ...tokenizer } }, config, 'm')
    expect(write({ pre_tokenizer: { type: 'Metaspace' } })).toThrow(
      /m: its tokenizer can't be told.*gpt-2, smollm, qwen2, llama-bpe/,
    )
    expect(write({ normalizer: { type: 'Lowercase' } })).toThrow(/normalizes text by "Lowercase"/)
    expect(write({ model: { type: 'Unigram' } })).toThrow(ModelError)
    expect(() => ggufVocabulary(files, { ...config, vocab: 5 }, 'm')).toThrow(/it has 384 tokens, the model 5/)
  })
})
