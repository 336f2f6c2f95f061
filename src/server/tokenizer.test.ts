// The truth is Hugging Face's own tokenizers library on the same vocabulary (test/golden/gguf/make.py).

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { ModelError } from '../errors'
import { ggufTokenizer } from './gguf-tokenizer'
import { loadTokenizer, type Tokenizer } from './tokenizer'

const GOLDEN = join(__dirname, '../../test/golden/gguf')
const golden = (name: string) => JSON.parse(readFileSync(join(GOLDEN, name), 'utf8'))
const tiny: { vocab: string[]; merges: string[]; special: number; cases: Record<string, Encoding[]> } = golden('tokenizers.json')

interface Encoding {
  readonly text: string
  readonly ids: number[]
  readonly decoded: string
  readonly skipped: string
}

const folder = mkdtempSync(join(tmpdir(), 'arbor-tokenizer-'))
afterAll(() => rmSync(folder, { recursive: true }))

const metadata = (pre: string) => ({
  'tokenizer.ggml.model': 'gpt2',
  'tokenizer.ggml.pre': pre,
  'tokenizer.ggml.tokens': tiny.vocab,
  'tokenizer.ggml.merges': tiny.merges,
  'tokenizer.ggml.token_type': tiny.vocab.map((_, id) => (id < tiny.special ? 3 : 1)),
  'tokenizer.ggml.bos_token_id': 1,
  'tokenizer.ggml.eos_token_id': 2,
})

/** The tiny vocabulary as the files of a model folder. */
async function tinyTokenizer(pre: string, config: object = {}, extra: object = {}): Promise<Tokenizer> {
  const files = ggufTokenizer({ ...metadata(pre), ...extra }, 'tiny')
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(files.tokenizer))
  writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify({ ...files.config, ...config }))
  return loadTokenizer({ name: 'tiny', kind: 'folder', path: folder })
}

function expectEncodings(tokenizer: Tokenizer, cases: readonly Encoding[]): void {
  for (const { text, ids, decoded, skipped } of cases) {
    expect(tokenizer.encode(text), JSON.stringify(text)).toEqual(ids)
    expect(tokenizer.decode(ids, { skipSpecial: false })).toBe(decoded)
    expect(tokenizer.decode(ids)).toBe(skipped)
  }
}

describe('tokenizer', () => {
  it.each(Object.keys(tiny.cases))('%s: same ids and text as the tokenizers library', async (pre) => {
    expectEncodings(await tinyTokenizer(pre), tiny.cases[pre]!)
  })

  it.each([
    ['tiny-llama.gguf', 'smollm'],
    ['tiny-qwen2.gguf', 'qwen2'],
  ])('%s: the tokenizer of its metadata is the same', async (file, pre) => {
    const tokenizer = await loadTokenizer({ name: file, kind: 'gguf', path: join(GOLDEN, file) })
    expectEncodings(tokenizer, tiny.cases[pre]!)
    expect(tokenizer.eosTokenIds).toEqual([2])
    expect([...tokenizer.specialTokens]).toEqual([
      ['<|endoftext|>', 0],
      ['<|im_start|>', 1],
      ['<|im_end|>', 2],
    ])
  })

  it('the stream gives every character once and whole, though its bytes are several tokens', async () => {
    const tokenizer = await tinyTokenizer('smollm')
    for (const { text, ids } of tiny.cases['smollm']!) {
      const stream = tokenizer.stream({ skipSpecial: false })
      const pieces = ids.map((id) => stream.push(id))
      expect(pieces.join('') + stream.flush()).toBe(text)
      expect(pieces.join('')).not.toContain('\ufffd')
    }
    const stream = tokenizer.stream()
    const family = tokenizer.encode('👩‍👧')
    expect(family.length).toBeGreaterThan(5)
    expect(family.map((id) => stream.push(id)).filter((piece) => piece !== '')).toEqual(['👩', '‍', '👧'])
  })

  it('a stream cut inside a character shows it as U+FFFD at the end, and goes on after bytes that are no text', async () => {
    const tokenizer = await tinyTokenizer('smollm')
    const [first, ...rest] = tokenizer.encode('é!') as [number, ...number[]]
    const cut = tokenizer.stream()
    expect(
      tokenizer
        .encode('日')
        .slice(0, 2)
        .map((id) => cut.push(id)),
    ).toEqual(['', ''])
    expect(cut.flush()).toBe('\ufffd')
    const broken = tokenizer.stream()
    const lone = tokenizer.encode('日')[0]!
    expect([lone, lone, lone, lone, lone, first, ...rest].map((id) => broken.push(id)).join('') + broken.flush()).toBe(
      '\ufffd\ufffd\ufffd\ufffd\ufffdé!',
    )
  })

  it('a BOS is added only when asked for', async () => {
    const tokenizer = await tinyTokenizer('llama-bpe', {}, { 'tokenizer.ggml.add_bos_token': true })
    expect(tokenizer.encode('he', { addSpecial: true })).toEqual([1, ...tokenizer.encode('he')])
    expect(tokenizer.encode('he')[0]).not.toBe(1)
  })

  it('ends of text come from the tokenizer and from both model configurations, each once', async () => {
    writeFileSync(join(folder, 'config.json'), JSON.stringify({ eos_token_id: 2 }))
    writeFileSync(join(folder, 'generation_config.json'), JSON.stringify({ eos_token_id: [2, 0] }))
    expect((await tinyTokenizer('smollm', { eos_token: { content: '<|im_end|>' } })).eosTokenIds).toEqual([2, 0])
    rmSync(join(folder, 'config.json'))
    rmSync(join(folder, 'generation_config.json'))
  })

  it('the chat template comes from the file, from a list, or from the configuration', async () => {
    const list = [
      { name: 'tool_use', template: 'T' },
      { name: 'default', template: 'D' },
    ]
    expect((await tinyTokenizer('smollm', { chat_template: list })).chatTemplate).toBe('D')
    expect((await tinyTokenizer('smollm', { chat_template: 'S' })).chatTemplate).toBe('S')
    expect((await tinyTokenizer('smollm')).chatTemplate).toBe(null)
    writeFileSync(join(folder, 'chat_template.jinja'), 'F')
    expect((await tinyTokenizer('smollm', { chat_template: 'S' })).chatTemplate).toBe('F')
    rmSync(join(folder, 'chat_template.jinja'))
  })

  it('unknown kinds of tokenizer are errors that name them', async () => {
    expect(() => ggufTokenizer({ ...metadata('smollm'), 'tokenizer.ggml.model': 'llama' }, 'm.gguf')).toThrow(
      /m\.gguf: .*kind "llama"/,
    )
    expect(() => ggufTokenizer(metadata('deepseek'), 'm.gguf')).toThrow(
      /pre-tokenizer is "deepseek"\. Supported in GGUF: gpt-2, smollm/,
    )
    const empty = mkdtempSync(join(folder, 'empty-'))
    const load = () => loadTokenizer({ name: 'empty', kind: 'folder', path: empty })
    await expect(load()).rejects.toThrow(/tokenizer\.json: missing/)
    writeFileSync(join(empty, 'tokenizer.json'), '{"model": {"type": "Nope"}}')
    await expect(load()).rejects.toThrow(ModelError)
  })
})
