// Text from tokens as they come.

import { describe, expect, it } from 'vitest'
import { byteCodec } from './fixture'
import { CompletionText } from './stop-text'

function fedByteByByte(text: string, stops: readonly string[] = []): { safe: string[]; completion: CompletionText } {
  const tokens = byteCodec.encode(text)
  const completion = new CompletionText(byteCodec.stream(), stops)
  const safe = tokens.map((_, i) => {
    completion.feed(tokens.slice(0, i + 1))
    return completion.safeText
  })
  completion.finish(tokens)
  return { safe, completion }
}

describe('the text of a completion', () => {
  it('grows by whole characters', () => {
    const { safe, completion } = fedByteByByte('a€b')
    expect(safe).toEqual(['a', 'a', 'a', 'a€', 'a€b'])
    expect(completion.tokenTexts.join('')).toBe('a€b')
  })

  it('shows an unfinished character at the end as the replacement sign', () => {
    const tokens = byteCodec.encode('a€').slice(0, 3)
    const completion = new CompletionText(byteCodec.stream())
    completion.finish(tokens)
    expect(completion.text).toBe('a\uFFFD')
    expect(completion.tokenCount).toBe(3)
  })

  it('never lets a part of a stop string out, and lets it go when it was none', () => {
    const { safe, completion } = fedByteByByte('one STOp STOP two', ['STOP'])
    expect(safe.filter((text) => /S$|ST$|STO$/.test(text))).toEqual([])
    expect(safe[7]).toBe('one STOp')
    expect(completion.text).toBe('one STOp ')
    expect(completion.stopped).toBe(true)
    expect(completion.tokenCount).toBe('one STOp STOP'.length)
  })

  it('ends at the first of several stop strings, also when one token completes two', () => {
    const completion = new CompletionText({ push: () => 'a|b#c', flush: () => '' }, ['#', '|'])
    completion.finish([1, 2])
    expect(completion.text).toBe('a')
    expect(completion.tokenCount).toBe(1)
  })

  it('is empty for no tokens, and for the end token alone', () => {
    const completion = new CompletionText(byteCodec.stream(), ['x'])
    completion.finish([])
    expect([completion.text, completion.tokenCount]).toEqual(['', 0])
    completion.finish([257])
    expect([completion.text, completion.tokenCount]).toEqual(['', 1])
  })

  it('is the same when all tokens come at once and nobody watched them', () => {
    const decode = (tokens: readonly number[]) => byteCodec.decode(tokens)
    for (const cut of [0, 1, 2, 3, 4, 5]) {
      const tokens = byteCodec.encode('a€b').slice(0, cut)
      const [atOnce, oneByOne] = [decode, null].map((whole) => new CompletionText(byteCodec.stream(), [], whole))
      for (const text of [atOnce!, oneByOne!]) text.finish(tokens)
      expect([atOnce!.text, atOnce!.tokenCount]).toEqual([oneByOne!.text, oneByOne!.tokenCount])
    }
    const stopped = new CompletionText(byteCodec.stream(), ['b'], decode)
    stopped.finish(byteCodec.encode('abc'))
    expect([stopped.text, stopped.tokenCount]).toEqual(['a', 2])
  })
})
