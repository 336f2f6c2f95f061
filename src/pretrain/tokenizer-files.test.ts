import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { writeWhole } from '../engine/whole-file'
import { ModelError } from '../errors'
import { trainBpe } from './bpe'
import { BpeEncoder } from './encoder'
import { checkTokenizer } from './export-model'
import { readTokenizer, SPECIAL_TOKENS, writeTokenizer } from './tokenizer-files'
import { countWords } from './words'

const texts = [
  '[[ ## reasoning ## ]]\nSan Jose is the capital of Costa Rica. Costa Rica lies in North America.\n\n[[ ## answer ## ]]\nNorth America',
  "Step by step. 40 + 20 = 60 and 6 + 7 = 13, so 46 + 27 = 73. It's 3/4, isn't it?",
  'déjà vu — São Tomé 🙂  two  spaces\t\ttabs\n\n\nand lines   ',
]
const bpe = trainBpe(countWords([...texts, ...texts]), { vocab: 400, specials: SPECIAL_TOKENS })
const folder = mkdtempSync(join(tmpdir(), 'arbor-tokenizer-'))
afterEach(() => rmSync(join(folder, 'tokenizer.json'), { force: true }))

describe('tokenizer files', () => {
  it('read again give the same vocabulary', () => {
    writeTokenizer(folder, bpe, { contextLength: 64 })
    expect(readTokenizer(folder)).toEqual(bpe)
  })

  it('are read by @huggingface/tokenizers as our encoder encodes, special tokens included', () => {
    writeTokenizer(folder, bpe, { contextLength: 64 })
    const chat = `<|im_start|>user\n${texts[0]}<|im_end|>\n<|im_start|>assistant\n`
    checkTokenizer(folder, new BpeEncoder(bpe), [...texts, chat, '', ' ', '<|im_end|><|im_end|>'])
  })

  it('the check notices another vocabulary', () => {
    writeTokenizer(folder, bpe, { contextLength: 64 })
    const other = new BpeEncoder(trainBpe(countWords(['other words']), { vocab: 270, specials: SPECIAL_TOKENS }))
    expect(() => checkTokenizer(folder, other, texts)).toThrow(ModelError)
  })

  it('a file of something else is named', () => {
    writeWhole(join(folder, 'tokenizer.json'), '{"model":{"type":"WordPiece"}}')
    expect(() => readTokenizer(folder)).toThrow(/tokenizer\.json/)
  })
})
