import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { OptionError } from '../errors'
import { type Bpe, trainBpe } from './bpe'
import { BpeEncoder } from './encoder'
import { countWords } from './words'

interface Golden {
  readonly specials: string[]
  readonly alphabet: string
  readonly cases: Record<string, Case>
}
interface Case {
  readonly texts: string[]
  readonly vocab: number
  readonly tokens: string[] // after the bytes
  readonly merges: [string, string][]
  readonly encoded: { text: string; ids: number[] }[]
}

const golden = JSON.parse(readFileSync(join(__dirname, '../../test/golden/bpe/golden.json'), 'utf8')) as Golden
const { specials } = golden
const train = (texts: readonly string[], vocab: number): Bpe => trainBpe(countWords(texts), { vocab, specials })

describe('byte-level BPE against Hugging Face tokenizers', () => {
  for (const [name, { texts, vocab, tokens, merges, encoded }] of Object.entries(golden.cases)) {
    it(`learns the same tokens and merges in the same order: ${name}`, () => {
      const bpe = train(texts, vocab)
      expect(bpe.tokens).toEqual([...specials, ...golden.alphabet, ...tokens])
      expect(bpe.merges.map(({ left, right }) => [bpe.tokens[left], bpe.tokens[right]])).toEqual(merges)
    })

    it(`encodes the same: ${name}`, () => {
      const encoder = new BpeEncoder(train(texts, vocab))
      for (const { text, ids } of encoded) expect(encoder.encode(text), JSON.stringify(text)).toEqual(ids)
    })
  }

  it('gives the same vocabulary whatever order the texts come in', () => {
    const { texts, vocab } = golden.cases['a task']!
    expect(train([...texts].reverse(), vocab)).toEqual(train(texts, vocab))
  })

  it('refuses a vocabulary without room for the bytes', () => {
    expect(() => train(['a'], 258)).toThrow(OptionError)
  })
})
