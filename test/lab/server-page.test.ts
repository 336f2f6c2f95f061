// The page of the server in a real Chromium, against a real server: a job followed to its end, its rollouts read, by mouse and by keys.

import type { Browser, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { ServerInfo } from '../../src/optimize'
import type { StepRecord } from '../../src/protocol'
import { compile, exampleOf, freshFolder, MODEL, recordsOnDisk, runFolder, serve } from '../e2e/tiny'
import { chromium } from './lab'
import { openBrowser } from './page'

const LIMIT_MS = 120_000
/** What a page must draw as text. */
const HOSTILE = '<img src=x onerror="document.title=1"> </pre><script>document.title=2</script> & "quoted"'
const QUESTIONS = [HOSTILE, 'two', 'three'].map((question) => exampleOf(question))

const found = chromium()
const missing = 'reason' in found ? found.reason : null

describe.skipIf(missing !== null)(`the page of the server${missing === null ? '' : `: ${missing}`}`, () => {
  let browser: Browser
  let server: ServerInfo
  const storagePath = freshFolder()
  const pages: Page[] = []
  let strangers: string[] = []
  let complaints: string[] = []

  beforeAll(async () => {
    if ('program' in found) browser = await openBrowser(found.program)
    server = await serve({ storagePath })
  })
  afterEach(async () => {
    for (const page of pages.splice(0)) await page.close()
    expect(strangers).toEqual([])
    expect(complaints).toEqual([])
  })
  afterAll(async () => {
    await browser?.close()
    await server?.close()
  })

  /** A page that notes what it asks of others, and what the browser complains about. */
  async function open(hash = '', options: { width?: number; dark?: boolean } = {}): Promise<Page> {
    const { width = 1280, dark = false } = options
    const page = await browser.newPage({ viewport: { width, height: 900 }, colorScheme: dark ? 'dark' : 'light' })
    pages.push(page)
    strangers = []
    complaints = []
    const origin = new URL(server.pageUrl).origin
    page.on('request', (request) => void (request.url().startsWith(origin) || strangers.push(request.url())))
    page.on('pageerror', (error) => complaints.push(error.message))
    page.on('console', (message) => void (message.type() === 'error' && complaints.push(message.text())))
    await page.goto(`${origin}/${hash}`)
    return page
  }

  async function train(numTrainSteps: number): Promise<{ id: string; records: StepRecord[] }> {
    const { compiler } = await compile(
      server,
      { numTrainSteps, numStepsForVal: 2 },
      { trainset: QUESTIONS, valset: [exampleOf('one')] },
    )
    const id = compiler.run!.jobId
    return { id, records: recordsOnDisk(storagePath, id) }
  }

  const hashOf = (id: string) => `#${encodeURIComponent(id)}`
  /** Points of the line of mean rewards. */
  const points = (page: Page) =>
    page
      .locator('figure.chart')
      .first()
      .locator('path.line[stroke-width="2.5"]')
      .evaluate((path) => path.getAttribute('d')!.split('L').length)

  it(
    'follows a job from the first step to its end by itself',
    async () => {
      const page = await open()
      await page.getByRole('heading', { name: 'The server is ready' }).waitFor()
      expect(await page.locator('.welcome code').textContent()).toBe(server.baseUrl)
      const { id, records } = await train(8)
      await page.locator('.chip.succeeded').waitFor({ timeout: 15_000 })
      expect(await page.locator('.job .id code').textContent()).toBe(id)
      await expect.poll(() => points(page)).toBe(8)
      expect(await page.locator('.progress .done').getAttribute('width')).toMatch(/%$/)
      await expect.poll(() => page.locator('.files .path code').textContent()).toBe(runFolder(storagePath, id))
      await expect
        .poll(() => page.locator('.checkpoints li').allTextContents())
        .toEqual(expect.arrayContaining([expect.stringMatching(/^checkpoint_final step 8/)]))
      await expect
        .poll(() => page.locator('.models code').evaluateAll((codes) => codes.map((code) => code.getAttribute('title'))))
        .toEqual(expect.arrayContaining([expect.stringContaining('tiny'), id]))
      await expect
        .poll(() => page.locator('figure.chart').first().locator('figcaption').textContent())
        .toContain(`mean reward${records[7]!.reward.toFixed(2)}`)
      await expect.poll(() => page.locator('.stepper input').inputValue()).toBe('8')
    },
    LIMIT_MS,
  )

  it(
    'shows what was asked and written as text, whatever it is, best first',
    async () => {
      const { id, records } = await train(2)
      const page = await open(`${hashOf(id)}/2`)
      const record = records[1]!
      const hostile = record.groups.findIndex(({ title }) => title.includes('<img'))
      await page.locator(`#group-${hostile}`).click()
      const group = record.groups[hostile]!
      const order = group.advantages.map((_, i) => i).sort((a, b) => group.advantages[b]! - group.advantages[a]!)
      await expect.poll(() => page.locator('.group h4').textContent()).toBe(group.title)
      const shown = await page.locator('.rollouts > li pre').allTextContents()
      expect(shown).toEqual(order.map((i) => group.completions[i] || 'an empty completion'))
      await page.locator('.prompt summary').click()
      expect(await page.locator('.message pre').allTextContents()).toEqual([HOSTILE])
      expect(await page.locator('img').count()).toBe(1) // ours
      expect(await page.title()).toContain('arbor-nb')
      expect(await page.evaluate(() => document.querySelectorAll('script').length)).toBe(1)
    },
    LIMIT_MS,
  )

  it(
    'is worked by keys alone: steps in a chart, groups in their list, and it tells a screen reader where it is',
    async () => {
      const { id, records } = await train(5)
      const page = await open(hashOf(id))
      const chart = page.getByRole('slider', { name: 'Reward, by step' })
      await expect.poll(() => chart.getAttribute('aria-valuemax')).toBe('5')
      await page.keyboard.press('Tab')
      expect(await page.evaluate(() => document.activeElement?.textContent)).toBe('To the job')
      await chart.focus()
      await page.keyboard.press('Home')
      await page.keyboard.press('ArrowRight')
      await expect.poll(() => page.locator('.stepper input').inputValue()).toBe('2')
      await expect
        .poll(() => chart.getAttribute('aria-valuetext'))
        .toContain(`step 2: mean reward ${records[1]!.reward.toFixed(2)}`)
      await expect.poll(() => page.locator('h3', { hasText: 'Advantages in step' }).textContent()).toContain('step 2')
      await page.locator('.pages[aria-busy="false"]').waitFor()
      const list = page.getByRole('listbox', { name: 'Groups' })
      await list.focus()
      await page.keyboard.press('Home')
      await page.keyboard.press('ArrowDown')
      await expect.poll(() => list.getAttribute('aria-activedescendant')).toBe('group-1')
      await expect.poll(() => page.locator('.group h4').textContent()).toBe(records[1]!.groups[1]!.title)
      expect(await page.evaluate(() => document.activeElement?.getAttribute('role'))).toBe('listbox') // drawing anew took no focus
      await page.getByRole('button', { name: 'Follow the newest' }).press('Enter')
      await expect.poll(() => page.locator('.stepper input').inputValue()).toBe('5')
    },
    LIMIT_MS,
  )

  it(
    'a click in a chart turns to that step, and the pointer shows the values there',
    async () => {
      const { id, records } = await train(5)
      const page = await open(hashOf(id))
      await expect.poll(() => points(page)).toBe(5)
      const chart = page.getByRole('slider', { name: 'Reward, by step' })
      const { width } = (await chart.boundingBox())!
      const position = { x: 50 + ((width - 50 - 54) * 3) / 5, y: 100 } // steps 0 (the first validation) to 5
      await chart.hover({ position })
      const legend = page.locator('figure.chart').first().locator('figcaption')
      await expect.poll(() => legend.textContent()).toContain(`mean reward${records[2]!.reward.toFixed(2)}`)
      await chart.click({ position })
      await expect.poll(() => page.locator('.stepper input').inputValue()).toBe('3')
    },
    LIMIT_MS,
  )

  it(
    'shows the loss of a fine-tuning job',
    async () => {
      const line = JSON.stringify({
        messages: [
          { role: 'user', content: 'q' },
          { role: 'assistant', content: 'an answer' },
        ],
      })
      const form = new FormData()
      form.set('purpose', 'fine-tune')
      form.set('file', new Blob([`${line}\n`.repeat(24)]), 'lines.jsonl')
      const file = (await (await fetch(`${server.baseUrl}files`, { method: 'POST', body: form })).json()) as { id: string }
      const lora_config = { r: 4, lora_alpha: 8, target_modules: 'all-linear', lora_dropout: 0 }
      const body = { model: MODEL, training_file: file.id, hyperparameters: { n_epochs: 2, batch_size: 4, lora_config } }
      const made = await fetch(`${server.baseUrl}fine_tuning/jobs`, { method: 'POST', body: JSON.stringify(body) })
      const { id } = (await made.json()) as { id: string }
      const page = await open(hashOf(id))
      await page.locator('.chip.succeeded').waitFor({ timeout: 30_000 })
      const loss = page.locator('figure.chart').first()
      expect(await loss.locator('h3').textContent()).toBe('Loss')
      await expect
        .poll(() =>
          loss
            .locator('path.line')
            .first()
            .evaluate((path) => path.getAttribute('d')!.split('L').length),
        )
        .toBe(12)
    },
    LIMIT_MS,
  )

  it(
    'fits a phone, and is dark where the system is, or where a person wants it',
    async () => {
      const { id } = await train(2)
      const page = await open(hashOf(id), { width: 390, dark: true })
      await page.locator('.rollouts').waitFor()
      const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor)
      await expect.poll(() => page.evaluate(() => document.documentElement.scrollWidth - innerWidth)).toBeLessThanOrEqual(0)
      expect(await background()).toBe('rgb(21, 24, 28)')
      const theme = page.getByRole('button', { name: /^Theme/ })
      await theme.click() // light
      expect(await background()).toBe('rgb(253, 253, 252)')
      await page.reload()
      await theme.waitFor()
      expect([await background(), await theme.textContent()]).toEqual(['rgb(253, 253, 252)', 'Theme: light'])
    },
    LIMIT_MS,
  )

  it(
    'of another server on the same storage lists the runs of earlier ones, with charts and rollouts',
    async () => {
      const { id, records } = await train(3)
      const later = await serve({ storagePath })
      const page = await browser.newPage({ viewport: { width: 1280, height: 900 } })
      await page.goto(new URL(later.baseUrl).origin)
      await page.getByRole('heading', { name: 'The server is ready' }).waitFor() // no job of its own
      await page.locator(`.jobs a[title="${id}"]`).click()
      await expect.poll(() => page.locator('.chip').textContent()).toBe('succeeded')
      await expect.poll(() => points(page)).toBe(3)
      await page.locator('.rollouts > li pre').first().waitFor()
      const written = records[2]!.groups.flatMap(({ completions }) => completions)
      for (const text of await page.locator('.rollouts > li pre').allTextContents())
        expect(text === 'an empty completion' || written.includes(text)).toBe(true)
      await page.close()
      await later.close()
    },
    LIMIT_MS,
  )

  it(
    'says when the server is gone, and goes on when it is back',
    async () => {
      const first = await serve({ storagePath })
      const page = await browser.newPage()
      await page.goto(new URL(first.baseUrl).origin)
      await page.locator('.vitals').waitFor()
      await first.close()
      await page.getByRole('alert').waitFor()
      expect(await page.getByRole('alert').textContent()).toContain('does not answer')
      const second = await serve({ storagePath, port: first.port })
      await page.getByRole('alert').waitFor({ state: 'detached' })
      await page.close()
      await second.close()
    },
    LIMIT_MS,
  )
})
