// The workbook in real JupyterLab, by Run All: charts while it trains and afterwards, nothing that looks like an error, and everything
// still there after a reload and on a page made of it. Leaves pictures of it in build/lab-pictures, to be looked at.

import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseNotebook } from '../../src/cli/notebook'
import { injectParameters } from '../../src/cli/notebook-parameters'
import { browserOrReason, type Lab, PYTHON, ROOT, startLab } from './lab'
import { NotebookPage, openBrowser, pictureWidths } from './page'

const PICTURES = join(ROOT, 'build/lab-pictures')
const SMALL = { steps: 12, examplesPerStep: 4, rolloutsPerExample: 4, devSize: 8, testSize: 16, lessons: false }
/** Two while it trains; the signal, the groups, before and after. */
const CHARTS = 5
const LIMIT_MS = 240_000

const found = browserOrReason()
const missing = 'reason' in found ? found.reason : null

describe.skipIf(missing !== null)(`the workbook in JupyterLab${missing === null ? '' : `: ${missing}`}`, () => {
  let lab: Lab
  let browser: Browser
  let shown: NotebookPage
  const picture = async (name: string) => void (await shown.page.screenshot({ path: join(PICTURES, `${name}.png`) }))

  beforeAll(async () => {
    mkdirSync(PICTURES, { recursive: true })
    lab = await startLab({ ARBOR_DEVICE: 'cpu' })
    const source = join(ROOT, 'notebooks/01-grpo-workbook.ipynb')
    const notebook = parseNotebook(readFileSync(source, 'utf8'), source)
    injectParameters(notebook, new Map(Object.entries({ ...SMALL, checkpoint: join(lab.folder, 'checkpoint') })))
    writeFileSync(join(lab.folder, 'workbook.ipynb'), JSON.stringify(notebook))
    if ('program' in found) browser = await openBrowser(found.program)
    shown = await NotebookPage.open(browser, lab.page('workbook.ipynb'))
  }, LIMIT_MS)
  afterAll(async () => {
    await browser?.close()
    await lab?.close()
  })

  it(
    'runs without an error, draws while it trains, and keeps the zoom of a person who looks closer',
    async () => {
      await shown.runAll()
      await shown.untilDrawn(1, LIMIT_MS)
      const early = await shown.charts()
      await shown.scrollTo(0)
      await picture('training')
      await shown.zoom(0)
      const zoomed = (await shown.charts())[0]!
      expect(await shown.finished(LIMIT_MS)).toEqual([])
      const after = await shown.untilDrawn(CHARTS)
      expect(after).toHaveLength(CHARTS)
      expect(early[0]!.points).toBeLessThan(SMALL.steps)
      expect(after[0]!.points).toBe(SMALL.steps)
      expect(after[0]!.range).toEqual(zoomed.range)
      expect(zoomed.range).not.toEqual(early[0]!.range)
    },
    LIMIT_MS,
  )

  it('is all there after a reload, in the dark too', async () => {
    await shown.save()
    await shown.reload()
    const charts = await shown.untilDrawn(CHARTS)
    expect(charts.map(({ points }) => points)[0]).toBe(SMALL.steps)
    for (let i = 0; i < CHARTS; i++) {
      await shown.scrollTo(i)
      await picture(`light-${i}`)
    }
    await shown.command('apputils:change-theme', { theme: 'JupyterLab Dark' })
    await new Promise((resolve) => setTimeout(resolve, 1500))
    for (let i = 0; i < CHARTS; i++) {
      await shown.scrollTo(i)
      await picture(`dark-${i}`)
    }
  }, 90_000)

  it('shows its charts on a page made by nbconvert', async () => {
    const args = ['-m', 'nbconvert', '--to', 'html', 'workbook.ipynb']
    const converted = spawnSync(PYTHON, args, { cwd: lab.folder, env: lab.env, encoding: 'utf8' })
    expect(converted.stderr).toContain('Writing')
    const page = await browser.newPage({ viewport: { width: 1280, height: 1000 } })
    await page.goto(`file://${join(lab.folder, 'workbook.html')}`)
    expect(await pictureWidths(page)).toEqual(Array(CHARTS).fill(820))
    await page.locator('.jp-OutputArea img').first().scrollIntoViewIfNeeded()
    await page.screenshot({ path: join(PICTURES, 'nbconvert.png') })
    await page.close()
  }, 90_000)
})
