import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { context } from './context'
import { DummyLM } from './dummy-lm'
import { History } from './history'
import { Predict } from './predict'
import { LocalCorpus, Retrieve } from './retrieve'

const rows = [
  { id: 'g', title: 'Goethe', text: 'Johann Wolfgang von Goethe was born in Frankfurt in 1749.' },
  { id: 's', title: 'Schiller', text: 'Friedrich Schiller was born in Marbach.' },
  { text: 'Bonn lies on the Rhine.' },
]
let dir = ''
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'arbor-corpus-'))
})
afterEach(() => rmSync(dir, { recursive: true }))

describe('Retrieve', () => {
  it('finds the passages that share the rarest words with the query, best first', async () => {
    const corpus = await LocalCorpus.from(rows)
    const { passages, ids, scores } = await new Retrieve({ k: 2, rm: corpus }).call('Where was Goethe born?')
    expect(passages).toEqual([`Goethe | ${rows[0]!.text}`, `Schiller | ${rows[1]!.text}`])
    expect(ids).toEqual(['g', 's'])
    expect(scores[0]).toBeGreaterThan(scores[1]!)
    expect((await new Retrieve({ rm: corpus }).call('Rhine', { k: 1 })).passages).toEqual([rows[2]!.text])
    expect((await new Retrieve({ rm: corpus }).call('xylophone')).passages).toEqual([])
  })

  it('reads a corpus of JSON lines, and takes the configured one', async () => {
    const file = join(dir, 'corpus.jsonl')
    writeFileSync(file, rows.map((row) => JSON.stringify(row)).join('\n'))
    const rm = await LocalCorpus.load(file)
    const { ids } = await context({ rm }, () => new Retrieve({ k: 1 }).call('Marbach'))
    expect(ids).toEqual(['s'])
    expect(rm.search('Bonn', 1)[0]!.id).toBe('2') // its number, where a row has no id
  })

  it('says what is missing', async () => {
    await expect(new Retrieve().call('x')).rejects.toThrow('No RM is loaded')
    await expect(LocalCorpus.load(join(dir, 'none.jsonl'))).rejects.toThrow(/no corpus '.*none\.jsonl'/)
    writeFileSync(join(dir, 'bad.jsonl'), '{"title": "t"}\n')
    await expect(LocalCorpus.load(join(dir, 'bad.jsonl'))).rejects.toThrow(/line 1: the .*field 'text' is missing/)
    await expect(LocalCorpus.from([])).rejects.toThrow(/at least one passage/)
    await expect(LocalCorpus.from([{ text: 3 }])).rejects.toThrow(/Passage 0 has no `text`/)
    expect(() => new Retrieve({ k: 0 })).toThrow(/k must be/)
  })
})

describe('History', () => {
  it('grows by turns, each a new history', () => {
    const empty = new History()
    const one = empty.with({ question: 'q', answer: 'a' })
    expect([empty.length, one.messages]).toEqual([0, [{ question: 'q', answer: 'a' }]])
    expect(() => (one.messages as object[]).push({})).toThrow()
    expect(() => new History({ messages: ['x'] as never })).toThrow(/list of records/)
  })

  it('is what a conversation must be', async () => {
    const chat = new Predict('history: dspy.History, question -> answer')
    const call = context({ lm: new DummyLM([]) }, () => chat.call({ history: 'hello' as never, question: 'q' }))
    await expect(call).rejects.toThrow('A conversation must be a dspy.History, but it is "hello".')
  })
})
