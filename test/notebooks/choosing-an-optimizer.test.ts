// Notebook 03 from its first cell to its last on the model that ships, every optimizer included, at the smallest settings.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { freshFolder, ROOT, whyNot } from '../e2e/tiny'
import { arborNb, type Cell, type Finished, homeOfItsOwn, type Output } from './run-notebook'

const NOTEBOOK = join(ROOT, 'notebooks/03-choosing-an-optimizer.ipynb')
const FEW = { maxBootstrappedDemos: 1, maxLabeledDemos: 0 }
const SMALLEST = {
  sizes: { train: 8, val: 4, test: 4 },
  bootstrapRS: { ...FEW, numCandidatePrograms: 1 },
  mipro: { ...FEW, auto: null, numCandidates: 2 },
  miproCompile: { numTrials: 1, minibatch: false },
  simba: { bsize: 4, numCandidates: 2, maxSteps: 1, maxDemos: 1 },
  gepa: { maxMetricCalls: 10, reflectionMinibatchSize: 1 },
  finetune: { learning_rate: 1e-3, num_train_epochs: 1 },
  grpo: { numTrainSteps: 1, numDspyExamplesPerGrpoStep: 2, numRolloutsPerGrpoStep: 2, excludeDemos: false },
  togetherSteps: 1,
}
const SEARCHES = ['BootstrapRS', 'MIPROv2', 'SIMBA', 'GEPA', 'BetterTogether']
const TRAININGS = ['BootstrapFinetune', 'ArborGRPO']

let missing: string | null = null
let run: Finished
let code: readonly Cell[]

beforeAll(async () => {
  missing = await whyNot()
  if (missing !== null) return
  const out = freshFolder()
  const file = join(out, 'executed.ipynb')
  const env = { ARBOR_HOME: homeOfItsOwn(out), ARBOR_DEVICE: 'cpu' }
  run = await arborNb(['run', NOTEBOOK, '-p', `change=${JSON.stringify(SMALLEST)}`, '-o', file], env)
  const { cells } = JSON.parse(readFileSync(file, 'utf8')) as { cells: Cell[] }
  code = cells.filter((cell) => cell.cell_type === 'code')
}, 300_000)

describe('choosing an optimizer', () => {
  const textOf = ({ data = {} }: Output) => [data['text/plain']].flat().join('')
  const charts = ({ outputs = [] }: Cell) =>
    outputs.filter(({ data = {} }) => 'application/vnd.plotly.v1+json' in data).map(textOf)

  it('runs to its end without an error', ({ skip }) => {
    skip(missing !== null, missing ?? '')
    expect(`${run.printed}\nexit code ${run.status}`).toMatch(/exit code 0$/)
    for (const cell of code) expect(cell.execution_count).toBeGreaterThan(0)
  })

  it('compares every optimizer in one table, each with what it cost', ({ skip }) => {
    skip(missing !== null, missing ?? '')
    const summary = code.find((cell) => cell.metadata?.tags?.includes('summary'))
    const lines = textOf(summary!.outputs!.at(-1)!).split('\n')
    expect(lines[0]).toMatch(/greedy %.*sampled %.*LM calls.*tokens.*seconds/)
    const tokens = Object.fromEntries(lines.slice(1).map((line) => [line.split(' ')[0], Number(line.trim().split(/\s+/).at(-2))]))
    expect(Object.keys(tokens)).toEqual(['zero-shot', 'LabeledFewShot', ...SEARCHES.slice(0, 4), ...TRAININGS, 'BetterTogether'])
    for (const [optimizer, spent] of Object.entries(tokens))
      if (['zero-shot', 'LabeledFewShot'].includes(optimizer)) expect(spent).toBe(0)
      else expect(spent, optimizer).toBeGreaterThan(0)
  })

  it('draws the candidates of every search, the trainings, and scores against cost', ({ skip }) => {
    skip(missing !== null, missing ?? '')
    const drawn = code.flatMap(charts)
    for (const title of SEARCHES) expect(drawn.join('\n')).toContain(`${title}: candidate scores`)
    for (const part of ['Fine-tuning', 'Reward', 'asked greedily', 'sampled at temperature 1'])
      expect(drawn.join('\n')).toContain(part)
  })
})
