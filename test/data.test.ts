// data/simple-qa is what its README says, and comes out of its generator byte for byte.
import { execFileSync } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

const folder = join(__dirname, '..', 'data', 'simple-qa')
const files = ['train', 'dev', 'test', 'demos'] as const
const read = (name: string, from = folder) => readFileSync(join(from, `${name}.jsonl`), 'utf8')
const rows = (name: string) =>
  read(name)
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { question: string; answer: string; category: string })

describe('simple-qa', () => {
  it('has 200, 100 and 100 questions and two demonstrations, none of them twice', () => {
    expect(files.map((name) => rows(name).length)).toEqual([200, 100, 100, 2])
    const questions = files.flatMap((name) => rows(name).map((row) => row.question))
    expect(new Set(questions).size).toBe(402)
  })

  it('spreads every category over the three splits', () => {
    const counts = (name: string) => {
      const found = new Map<string, number>()
      for (const { category } of rows(name)) found.set(category, (found.get(category) ?? 0) + 1)
      return found
    }
    const [train, dev, test] = [counts('train'), counts('dev'), counts('test')]
    for (const [category, own] of train)
      for (const other of [dev, test]) expect(Math.abs((other.get(category) ?? 0) - own / 2), category).toBeLessThanOrEqual(1.5)
  })

  it('is what make.mjs writes', () => {
    const copy = mkdtempSync(join(tmpdir(), 'simple-qa-'))
    cpSync(join(folder, 'make.mjs'), join(copy, 'make.mjs'))
    execFileSync(process.execPath, [join(copy, 'make.mjs')])
    for (const name of files) expect(read(name, copy)).toBe(read(name))
  })
})
