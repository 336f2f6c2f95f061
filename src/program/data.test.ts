import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { loadDemos, loadExamples } from './data'

let dir = ''
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'arbor-data-'))
})
afterEach(() => rmSync(dir, { recursive: true }))
const write = (file: string, text: string) => writeFileSync(join(dir, file), text)
const row = '{"question": "q", "answer": "a"}\n'

describe('loading', () => {
  it('gives examples whose inputs are set', async () => {
    for (const file of ['train', 'dev', 'test']) write(`${file}.jsonl`, `${row}\n${row}`)
    const { trainset, devset, testset } = await loadExamples(dir, { inputs: ['question'] })
    expect([trainset.length, devset.length, testset.length]).toEqual([2, 2, 2])
    expect(trainset[0]!.inputs().toDict()).toEqual({ question: 'q' })
  })

  it('keeps the rows that are asked for, and says so when none is left', async () => {
    const where = ({ category }: Readonly<Record<string, unknown>>) => category === 'capital'
    const { testset } = await loadExamples('data/simple-qa', { inputs: ['question'], where })
    expect(testset.length).toBeGreaterThan(5)
    expect(new Set(testset.map((example) => example.category))).toEqual(new Set(['capital']))
    await expect(loadExamples('data/simple-qa', { inputs: ['question'], where: () => false })).rejects.toThrow(
      /keeps none of the 1535 rows of data\/simple-qa\/train\.jsonl/,
    )
  })

  it('finds the data of this package from any working folder', async () => {
    const before = process.cwd()
    process.chdir(dir)
    try {
      expect(await loadDemos('data/simple-qa')).toHaveLength(2)
    } finally {
      process.chdir(before)
    }
  })

  it('names file and line of what it cannot read', async () => {
    write('demos.jsonl', `${row}{"question": \n`)
    await expect(loadDemos(dir)).rejects.toThrow(/demos\.jsonl, line 2: not JSON/)
    write('demos.jsonl', '[1]\n')
    await expect(loadDemos(dir)).rejects.toThrow(/line 1: expected a JSON object/)
    write('demos.jsonl', '\n')
    await expect(loadDemos(dir)).rejects.toThrow(/demos\.jsonl is empty/)
    write('train.jsonl', '{"answer": "a"}\n')
    await expect(loadExamples(dir, { inputs: ['question'] })).rejects.toThrow(
      "the input field 'question' is missing; the row has answer.",
    )
  })

  it('says where it looked', async () => {
    await expect(loadDemos('no/such/folder')).rejects.toThrow(/no folder 'no\/such\/folder': looked at .*folder/)
    await expect(loadExamples(dir, { inputs: ['question'] })).rejects.toThrow(/no file .*train\.jsonl/)
    await expect(loadExamples(dir, { inputs: [] })).rejects.toThrow(/Say which fields are inputs/)
  })
})
