import { describe, expect, it } from 'vitest'
import type { ModelInfo } from '../engine/engine'
import { textCodec } from './services'
import type { Tokenizer } from './tokenizer'

describe('textCodec', () => {
  const asked: string[] = []
  const encode = (text: string, options?: { addSpecial?: boolean }) => {
    asked.push(text)
    return [...(options?.addSpecial ? [0] : []), ...[...text].map((letter) => letter.charCodeAt(0))]
  }
  const codec = textCodec({ encode, eosTokenIds: [2] } as unknown as Tokenizer, { eosTokenIds: [2, 3] } as unknown as ModelInfo)

  it('tokenizes a prompt once for all who ask for it, and gives them one list that nobody can change', () => {
    const first = codec.encode('abc')
    expect(() => (first as number[]).push(99)).toThrow(TypeError)
    expect(codec.encode('abc')).toBe(first)
    expect(first).toEqual([97, 98, 99])
    expect(asked).toEqual(['abc'])
  })

  it('keeps prompts with special tokens apart', () => {
    expect(codec.encode('abc', { addSpecial: true })).toEqual([0, 97, 98, 99])
    expect(codec.encode('abc')).toEqual([97, 98, 99])
  })

  it('forgets the oldest of many', () => {
    for (let i = 0; i < 1000; i++) codec.encode(`text ${i}`)
    asked.length = 0
    expect(codec.encode('text 999')).toHaveLength(8)
    expect(codec.encode('text 0')).toHaveLength(6)
    expect(asked).toEqual(['text 0'])
  })
})
