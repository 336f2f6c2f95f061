// The whole text's ids, as the tokenizers library gives them, are the truth; so is its text of any tokens.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Tokenizer } from '@huggingface/tokenizers'
import { describe, expect, it } from 'vitest'
import { byteDecoder } from './byte-decoder'
import { encodeWords, wordsOf } from './words'

const file = JSON.parse(readFileSync(join(__dirname, '../../data/models/arbor-tiny/tokenizer.json'), 'utf8'))
const QWEN =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
const bytes = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: false }
const split = (Regex: string) => ({ type: 'Split', pattern: { Regex }, behavior: 'Isolated', invert: false })
const qwen = { ...file, normalizer: { type: 'NFC' }, pre_tokenizer: { type: 'Sequence', pretokenizers: [split(QWEN), bytes] } }

let state = 1
const next = (n: number) => (state = (state * 48271) % 2147483647) % n

describe.each([
  ['GPT-2’s pattern', file],
  ['Qwen 2’s', qwen],
])('encodeWords with %s', (_, tokenizer) => {
  const inner = new Tokenizer(tokenizer, {})
  let asked = 0
  const whole = (text: string) => {
    asked++
    return [...inner.encode(text, { add_special_tokens: false }).ids]
  }
  const encode = encodeWords(whole, tokenizer)!

  it('gives the ids of the whole text, whatever stands beside a space', () => {
    const parts = [
      ' ',
      ' ',
      '  ',
      '\n',
      '\r\n',
      '\t',
      'What',
      'is',
      "it's",
      "'S",
      '23',
      '4th',
      '.',
      '(a)',
      'é',
      'e\u0301',
      '日本',
      '🙂',
      '\u00a0',
      '_',
      '',
    ]
    for (let i = 0; i < 1500; i++) {
      const text = Array.from({ length: next(12) }, () => parts[next(parts.length)]!).join('')
      expect(encode(text), JSON.stringify(text)).toEqual(whole(text))
      expect(wordsOf(text), JSON.stringify(text)).toEqual(text.split(/(?<=\S)(?= \p{L})/u))
    }
  })

  it('asks for a word once', () => {
    encode('The moon orbits the Earth')
    asked = 0
    expect(encode('The Earth orbits the moon')).toEqual(whole('The Earth orbits the moon'))
    expect(asked).toBe(1) // by this very test
  })
})

describe('encodeWords', () => {
  it('is not to be had where a pattern is unknown, a prefix is added or pieces are merged otherwise', () => {
    const of = (changes: object) => encodeWords(() => [], { ...file, ...changes })
    expect(of({ pre_tokenizer: split('.+') })).toBe(null)
    expect(of({ pre_tokenizer: { ...bytes, use_regex: true, add_prefix_space: true } })).toBe(null)
    expect(of({ pre_tokenizer: bytes })).toBe(null)
    expect(of({ pre_tokenizer: null })).toBe(null)
    expect(of({ normalizer: { type: 'Prepend' } })).toBe(null)
    expect(of({ model: { ...file.model, type: 'Unigram' } })).toBe(null)
  })
})

describe('byteDecoder', () => {
  const added = { content: '<tool>', lstrip: false, rstrip: false, normalized: false, single_word: false, special: false }
  const tokenizer = { ...file, added_tokens: [...file.added_tokens, { ...added, id: 2048 }] }
  const inner = new Tokenizer(tokenizer, {})
  const special = new Set([0, 1, 2])
  const decode = byteDecoder(tokenizer, special)!

  it("gives the library's text of any tokens: halves of characters, special and added ones among them", () => {
    for (let i = 0; i < 400; i++) {
      const tokens = Array.from({ length: 1 + next(40) }, () => (next(8) === 0 ? [0, 1, 2, 2048][next(4)]! : 3 + next(2045)))
      const expected = inner.decode(tokens, { skip_special_tokens: true, clean_up_tokenization_spaces: false })
      expect(decode(tokens), tokens.join()).toBe(expected)
    }
  })

  it('leaves what it has no bytes for to the library', () => {
    expect(decode([5, 99_999])).toBe(null)
    expect(byteDecoder({ ...file, decoder: { type: 'Metaspace' } }, special)).toBe(null)
    expect(byteDecoder({ ...file, model: { ...file.model, end_of_word_suffix: '</w>' } }, special)).toBe(null)
  })
})
