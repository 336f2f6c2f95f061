// The README's lines of TypeScript, as a reader would paste them into two cells: they compile, train and search. Fewer steps and examples.

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { freshFolder, ROOT, whyNot } from '../e2e/tiny'
import { arborNb, homeOfItsOwn } from './run-notebook'

/** The same lines, in seconds. */
function fewer(code: string): string {
  return code
    .replace('numTrainSteps: 100', 'numTrainSteps: 1')
    .replace('valset: devset', 'valset: devset.slice(0, 8)')
    .replace('slice(0, 60), trainset.slice(60, 120)', 'slice(0, 8), trainset.slice(60, 68)')
    .replace('numCandidatePrograms: 6', 'numCandidatePrograms: 1')
    .replace('Evaluate({ devset,', 'Evaluate({ devset: devset.slice(0, 8),')
}

it('runs from its first line to its last', async ({ skip }) => {
  const missing = await whyNot()
  skip(missing !== null, missing ?? '')
  const readme = readFileSync(join(ROOT, 'README.md'), 'utf8')
  const blocks = [...readme.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(([, code]) => code!)
  expect(blocks).toHaveLength(2)
  const cells = blocks.map((code, i) => ({
    cell_type: 'code',
    id: `cell-${i}`,
    metadata: {},
    execution_count: null,
    outputs: [],
    source: fewer(code),
  }))
  expect(cells.map(({ source }) => source)).not.toEqual(blocks)
  const folder = freshFolder()
  const file = join(folder, 'readme.ipynb')
  writeFileSync(file, JSON.stringify({ nbformat: 4, nbformat_minor: 5, metadata: {}, cells }))
  const { printed, status } = await arborNb(['run', file], { ARBOR_HOME: homeOfItsOwn(folder), ARBOR_DEVICE: 'cpu' })
  expect(`${printed}\nexit code ${status}`).toMatch(/exit code 0$/)
  expect(JSON.parse(readFileSync(join(folder, 'better.json'), 'utf8'))).toHaveProperty('predict')
}, 120_000)
