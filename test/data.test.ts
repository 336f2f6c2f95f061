// data/simple-qa is what its README says, and what the generator makes, byte for byte.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { questionSets } from '../src/pretrain/question-sets'

const folder = join(__dirname, '..', 'data', 'simple-qa')
const files = ['train', 'dev', 'test', 'demos'] as const
const read = (name: string) => readFileSync(join(folder, `${name}.jsonl`), 'utf8')
const rows = (name: string) =>
  read(name)
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { question: string; answer: string; category: string })

describe('simple-qa', () => {
  it('has 1535, 200 and 300 questions and two demonstrations, none of them twice', () => {
    expect(files.map((name) => rows(name).length)).toEqual([1535, 200, 300, 2])
    const questions = files.flatMap((name) => rows(name).map((row) => row.question))
    expect(new Set(questions).size).toBe(2037)
  })

  it('spreads every category over the three splits', () => {
    const counts = (name: string) => {
      const found = new Map<string, number>()
      for (const { category } of rows(name)) found.set(category, (found.get(category) ?? 0) + 1)
      return found
    }
    const [train, dev, test] = [counts('train'), counts('dev'), counts('test')]
    for (const [category, own] of train) {
      expect(Math.abs((dev.get(category) ?? 0) - (own * 200) / 1535), category).toBeLessThanOrEqual(1.5)
      expect(Math.abs((test.get(category) ?? 0) - (own * 300) / 1535), category).toBeLessThanOrEqual(1.5)
    }
  })

  it('is what make.mjs writes: each row as a line of JSON', () => {
    const sets = questionSets()
    for (const name of files) expect(read(name), name).toBe(sets[name].map((row) => JSON.stringify(row) + '\n').join(''))
    expect(rows('train')[0]).toEqual({ question: expect.any(String), answer: expect.any(String), category: expect.any(String) })
  })
})
