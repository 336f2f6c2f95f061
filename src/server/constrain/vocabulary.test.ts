// The walk through the tree of tokens, against trying each token by itself; the bytes of tokens, against the text they encode.

import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { hasToken } from '../../engine/sampling'
import { loadTokenizer } from '../tokenizer'
import { Automaton, type State } from './automaton'
import { Constraint, Course } from './constraint'
import { jsonSchemaGrammar } from './json-schema'
import { Vocabulary } from './vocabulary'
import { seeded } from './walk.fixture'

const MODEL = join(__dirname, '../../../data/models/arbor-tiny')
const schema = {
  type: 'object',
  properties: { name: { type: 'string' }, tags: { type: 'array', items: { enum: ['ä', 'äh', 'b'] } }, size: { type: 'number' } },
  required: ['name', 'tags'],
}

/** The state after a token, byte by byte. */
function after(state: State, text: string): State | null {
  let now: State | null = state
  for (const character of text) now = now?.after(character.charCodeAt(0)) ?? null
  return now
}

describe('tokens as bytes', async () => {
  const tokenizer = await loadTokenizer({ name: 'arbor-tiny', kind: 'folder', path: MODEL })
  const texts = tokenizer.bytes()

  it('are the bytes of the text that they encode, half characters and all', () => {
    for (const text of ['What is 2 + 2?\n', '  {"a": [1, -2.5e3]}\t', 'Zoë 日本語 \u{1f600}\r\n', 'x'.repeat(50)]) {
      const joined = tokenizer.encode(text).map((token) => texts[token])
      expect(Buffer.from(joined.join(''), 'latin1').toString()).toBe(text)
    }
    for (const token of tokenizer.specialTokens.values()) expect(texts[token]).toBeNull()
    expect(new Set(texts.filter((text) => text?.length === 1)).size).toBe(256) // so any text can be written byte by byte
  })

  it('that may come are those that lead somewhere, each tried alone; the furthest is the one most bytes from the end', () => {
    const vocabulary = new Vocabulary([...texts, 'name', '"', ''], texts.length + 40) // two of them double; more room than tokens
    const random = seeded(2)
    let state: State = new Automaton(jsonSchemaGrammar(schema)).start
    for (let step = 0; step < 40 && !(state.accepts && state.least === 0); step++) {
      const ways = vocabulary.texts.flatMap((text, token) => {
        const next = text ? after(state, text) : null
        return next ? [{ token, next }] : []
      })
      const { mask, tokens, furthest } = vocabulary.allowed(state)
      const found = [...vocabulary.texts.keys()].filter((token) => hasToken(mask, token))
      expect(found).toEqual(ways.map(({ token }) => token))
      expect([tokens, furthest]).toEqual([ways.length, Math.max(...ways.map(({ next }) => next.least))])
      const near = vocabulary.allowed(state, ({ least }) => least < state.least)
      expect(near.tokens).toBe(ways.filter(({ next }) => next.least < state.least).length)
      state = ways[Math.floor(random() * ways.length)]!.next
    }
  })

  it('a course comes to an end within any number of tokens that leaves room for one, whatever is drawn', () => {
    const constraint = new Constraint(jsonSchemaGrammar(schema), new Vocabulary(texts), [...tokenizer.eosTokenIds])
    const shortest = constraint.start.least
    const random = seeded(7)
    for (let limit = shortest + 1; limit < shortest + 40; limit++) {
      const course = new Course(constraint, limit)
      const tokens: number[] = []
      while (!tokenizer.eosTokenIds.includes(tokens.at(-1) ?? -1)) {
        const mask = course.next(tokens)
        const allowed = [...Array(32 * mask.length).keys()].filter((token) => hasToken(mask, token))
        tokens.push(allowed[Math.floor(random() * allowed.length)]!)
        expect(tokens.length).toBeLessThanOrEqual(limit)
      }
      expect(JSON.parse(tokenizer.decode(tokens))).toMatchObject({ name: expect.any(String), tags: expect.any(Array) })
    }
  })
})
