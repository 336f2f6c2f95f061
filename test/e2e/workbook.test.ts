// The workbook from its first cell to its last on the model that ships, lessons included, at the smallest settings: a tutorial that does not run is a failing test.

import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { arborNb, type Cell, type Finished, homeOfItsOwn } from '../notebooks/run-notebook'
import { freshFolder, ROOT, whyNot } from './tiny'

const SMALLEST = { steps: 2, examplesPerStep: 2, rolloutsPerExample: 2, devSize: 2, testSize: 4, lessonSteps: 1, lessonSize: 3 }
const LESSON_RUNS = 5 // low, hot, mended, coin, and the control model
const NOTEBOOK = join(ROOT, 'notebooks/01-grpo-workbook.ipynb')
const out = freshFolder()

let missing: string | null = null
let run: Finished
let cells: readonly Cell[]
let page: string

beforeAll(async () => {
  missing = await whyNot()
  if (missing !== null) return
  const parameters = { ...SMALLEST, checkpoint: join(out, 'checkpoint') }
  const set = Object.entries(parameters).flatMap(([name, value]) => ['-p', `${name}=${value}`])
  const files = ['-o', join(out, 'executed.ipynb'), '--html', join(out, 'page.html')]
  run = await arborNb(['run', NOTEBOOK, ...set, ...files], { ARBOR_HOME: homeOfItsOwn(out), ARBOR_DEVICE: 'cpu' })
  cells = (JSON.parse(readFileSync(join(out, 'executed.ipynb'), 'utf8')) as { cells: Cell[] }).cells
  page = readFileSync(join(out, 'page.html'), 'utf8')
}, 540_000)

describe('the workbook', () => {
  const code = () => cells.filter((cell) => cell.cell_type === 'code')

  it('runs to its end without an error', ({ skip }) => {
    skip(missing !== null, missing ?? '')
    expect(`${run.printed}\nexit code ${run.status}`).toMatch(/exit code 0$/)
    const errors = code().flatMap((cell) => (cell.outputs ?? []).filter((output) => output.output_type === 'error'))
    expect(errors).toEqual([])
    for (const cell of code()) expect(cell.execution_count).toBeGreaterThan(0)
  })

  it('is a notebook as nbformat 4 wants it, and keeps the cells it had', ({ skip }) => {
    skip(missing !== null, missing ?? '')
    const executed = JSON.parse(readFileSync(join(out, 'executed.ipynb'), 'utf8')) as { nbformat: number; metadata: object }
    const source = JSON.parse(readFileSync(NOTEBOOK, 'utf8')) as { cells: Cell[] }
    expect(executed.nbformat).toBe(4)
    expect(cells.length).toBeGreaterThanOrEqual(source.cells.length)
    const kinds = new Set(['stream', 'display_data', 'execute_result'])
    for (const output of code().flatMap((cell) => cell.outputs ?? [])) expect(kinds).toContain(output.output_type)
  })

  it('shows charts in the notebook and, with their data, on the page', ({ skip }) => {
    skip(missing !== null, missing ?? '')
    const charts = code().flatMap((cell) =>
      (cell.outputs ?? []).filter((output) => output.data && 'application/vnd.plotly.v1+json' in output.data),
    )
    expect(charts.length).toBeGreaterThanOrEqual(12)
    expect(page.match(/<figure class="chart"/g)).toHaveLength(charts.length)
    expect(page).toContain('"type":"scatter"')
  })

  it('says which model it runs and closes the main part with a table of before and after', ({ skip }) => {
    skip(missing !== null, missing ?? '')
    expect(run.printed).toContain('arbor-tiny: it comes with the package')
    const summary = code().find((cell) => cell.metadata?.tags?.includes('summary'))
    const text = summary?.outputs?.at(-1)?.data?.['text/plain']
    expect([text].flat().join('')).toMatch(/exact match %[\s\S]*before[\s\S]*after/)
  })

  it('leaves every run with its steps, and the last policy of the main one in the checkpoint folder', ({ skip }) => {
    skip(missing !== null, missing ?? '')
    const runs = join(out, 'home/runs')
    const steps = readdirSync(runs).map(
      (name) =>
        readFileSync(join(runs, name, 'steps.jsonl'), 'utf8')
          .trim()
          .split('\n').length,
    )
    expect(steps.sort()).toEqual([...Array(LESSON_RUNS).fill(SMALLEST.lessonSteps), SMALLEST.steps])
    expect(readdirSync(join(out, 'checkpoint/last'))).toContain('adapter_model.safetensors')
  })
})
