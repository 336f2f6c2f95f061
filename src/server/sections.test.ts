// The whole text's ids, as the tokenizers library gives them, are the truth.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Tokenizer } from '@huggingface/tokenizers'
import { describe, expect, it } from 'vitest'
import { type AddedToken, encodeSections } from './sections'

const file = JSON.parse(readFileSync(join(__dirname, '../../data/models/arbor-tiny/tokenizer.json'), 'utf8'))
const inner = new Tokenizer(file, {})
const asked: string[] = []
const whole = (text: string) => {
  asked.push(text)
  return [...inner.encode(text, { add_special_tokens: false }).ids]
}
const token = (content: string, changes: Partial<AddedToken> = {}): AddedToken => ({
  content,
  lstrip: false,
  rstrip: false,
  normalized: false,
  ...changes,
})

describe('encodeSections', () => {
  const encode = encodeSections(whole, file.added_tokens, file.pre_tokenizer)!

  it('gives the ids of the whole text', () => {
    const parts = [
      '<|im_start|>',
      '<|im_end|>',
      '<|endoftext|>',
      '<|im_',
      ' start|>',
      '\n',
      '  ',
      'What is 23 plus 41?',
      '[[ ## a ## ]]',
      'é日 ',
      '',
    ]
    let state = 1
    const next = (n: number) => (state = (state * 48271) % 2147483647) % n
    for (let i = 0; i < 300; i++) {
      const text = Array.from({ length: next(9) }, () => parts[next(parts.length)]!).join('')
      expect(encode(text), JSON.stringify(text)).toEqual(whole(text))
    }
  })

  it('tokenizes what it has seen no second time', () => {
    const prompt = (question: string) => `<|im_start|>system\nAnswer.<|im_end|>\n<|im_start|>user\n${question}<|im_end|>\n`
    encode(prompt('first'))
    asked.length = 0
    encode(prompt('second'))
    expect(asked).toEqual(['user\nsecond'])
  })

  it('is not to be had where sections know of each other', () => {
    expect(encodeSections(whole, [], null)).toBe(null)
    for (const changes of [{ lstrip: true }, { rstrip: true }, { normalized: true }])
      expect(encodeSections(whole, [token('<s>'), token('</s>', changes)], null)).toBe(null)
    expect(encodeSections(whole, [token('<s>')], { type: 'Metaspace', prepend_scheme: 'first' })).toBe(null)
    expect(encodeSections(whole, [token('a|b'), token('a|b c')], null)!('a|b c')).toEqual(whole('a|b c'))
  })
})
