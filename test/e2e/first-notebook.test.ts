// The notebook that `arbor-nb init` writes, on the model that ships: what a person runs first has to run.

import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { parseNotebook } from '../../src/cli/notebook'
import { homeOfItsOwn } from '../notebooks/run-notebook'
import { CLI, freshFolder, whyNot } from './tiny'

it('runs from init to its last cell and compares before and after', { timeout: 240_000 }, async ({ skip }) => {
  const missing = await whyNot()
  if (missing !== null) return skip(missing)
  const own = freshFolder()
  const folder = join(own, 'erstes Heft ü')
  const env = { ...process.env, ARBOR_DEVICE: 'cpu', ARBOR_HOME: homeOfItsOwn(own) }
  const arborNb = (...args: string[]) => spawnSync(process.execPath, [CLI, ...args], { cwd: folder, encoding: 'utf8', env })
  expect(spawnSync(process.execPath, [CLI, 'init', folder], { encoding: 'utf8' }).stderr).toBe('')
  const { status, stderr } = arborNb('run', 'first.ipynb', '-p', 'steps=1', '-o', 'done.ipynb')
  expect(status, stderr).toBe(0)
  const cells = parseNotebook(readFileSync(join(folder, 'done.ipynb'), 'utf8'), 'done.ipynb').cells
  const shown = JSON.stringify(cells.map((cell) => cell['outputs'] ?? []))
  expect(shown).toMatch(/\d+(\.\d+)? % of 100 held-out questions answered right/)
  expect(shown).toMatch(/step 1\/1 .*done/)
  expect(shown).toMatch(/untrained +\d+(\.\d+)?\\ntrained +\d/)
})
