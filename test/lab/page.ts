// A notebook open in headless Chromium, driven as a person would: open, Run All, zoom with the mouse, save, reload.

import { type Browser, chromium, type Page } from 'playwright-core'

/** What the page offers with --expose-app-in-browser, as far as used here. */
interface LabWindow {
  readonly jupyterapp: {
    readonly commands: { execute(id: string, args?: object): Promise<unknown> }
    readonly shell: { readonly currentWidget: { readonly sessionContext: SessionContext } | null }
  }
}
interface SessionContext {
  readonly isReady: boolean
  readonly session: { readonly kernel: { readonly status: string } | null } | null
}

/** @param program an executable Chromium */
export function openBrowser(program: string): Promise<Browser> {
  return chromium.launch({ executablePath: program, args: ['--no-sandbox', '--disable-gpu'] })
}

/** Widths of the still pictures among a page's outputs, 0 of one that is not loaded. */
export function pictureWidths(page: Page): Promise<number[]> {
  return page.$$eval('.jp-OutputArea img', (images) => images.map((image) => (image as HTMLImageElement).naturalWidth))
}

export class NotebookPage {
  private constructor(readonly page: Page) {}

  /** `without`: leaves our labextension out, as in a JupyterLab that lacks it. */
  static async open(browser: Browser, url: string, { without = false, dark = false } = {}): Promise<NotebookPage> {
    const page = await browser.newPage({ viewport: { width: 1280, height: 1000 } })
    if (without) await page.route(/arbor-nb-charts/, (route) => route.abort())
    await page.goto(url)
    const notebook = new NotebookPage(page)
    await notebook.ready()
    if (dark) await notebook.command('apputils:change-theme', { theme: 'JupyterLab Dark' })
    return notebook
  }

  async ready(): Promise<void> {
    await this.page.waitForSelector('.jp-Notebook .jp-Cell', { timeout: 60_000 })
    await this.page.waitForFunction(() => 'jupyterapp' in window)
  }

  /** Starts a command of JupyterLab's; does not wait for its end. */
  command(id: string, args: object = {}): Promise<void> {
    return this.page.evaluate(
      ([name, options]) => void (window as unknown as LabWindow).jupyterapp.commands.execute(name, options),
      [id, args] as const,
    )
  }

  /** Run > Run All Cells, when the kernel has come up; returns at once. */
  async runAll(): Promise<void> {
    await this.page.waitForFunction(
      () => {
        const context = (window as unknown as LabWindow).jupyterapp.shell.currentWidget?.sessionContext
        return context?.isReady && context.session?.kernel?.status === 'idle'
      },
      undefined,
      { timeout: 60_000, polling: 100 },
    )
    await this.command('notebook:run-all-cells')
  }

  /** Waits until every code cell has run or one has failed; answers the texts of errors. */
  async finished(timeout: number): Promise<string[]> {
    await this.page.waitForFunction(
      () => {
        const prompts = Array.from(document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')).map(
          (node) => node.textContent ?? '',
        )
        const failed = document.querySelector(
          '.jp-RenderedText[data-mime-type="application/vnd.jupyter.error"], [data-mime-type="application/vnd.jupyter.stderr"]',
        )
        return failed !== null || prompts.every((text) => /^\[\d+\]:?$/.test(text))
      },
      undefined,
      { timeout, polling: 200 },
    )
    return this.page.$$eval(
      '[data-mime-type="application/vnd.jupyter.error"], [data-mime-type="application/vnd.jupyter.stderr"]',
      (nodes) => nodes.map((node) => node.textContent ?? ''),
    )
  }

  /** Writes the notebook to its file, and waits until it is there. */
  async save(): Promise<void> {
    const saved = this.page.waitForResponse(
      (response) => response.request().method() === 'PUT' && response.url().includes('/api/contents/'),
    )
    await this.command('docmanager:save')
    await saved
  }

  async reload(): Promise<void> {
    await this.page.reload()
    await this.ready()
  }

  /** Drawn charts; what each has on its first x axis and how many points in its first series. */
  charts(): Promise<ChartState[]> {
    return this.page.$$eval('.jp-OutputArea .js-plotly-plot', (nodes) =>
      nodes.map((node) => {
        const { data, layout } = node as unknown as PlotlyNode
        const text = node.querySelector('.xtick text') as unknown as { ownerDocument: Document } | null
        const colour = text ? getComputedStyle(text as unknown as Element).fill : ''
        return { points: data[0]?.x.length ?? 0, range: layout.xaxis.range, colour, width: node.clientWidth }
      }),
    )
  }

  /** Waits for `count` charts, then answers them. */
  async untilDrawn(count: number, timeout = 30_000): Promise<ChartState[]> {
    await this.page.waitForFunction(
      (wanted) =>
        document.querySelector('.jp-OutputArea .js-plotly-plot .xtick') !== null &&
        document.querySelectorAll('.jp-OutputArea .js-plotly-plot:has(.subplot)').length >= wanted, // one that is zoomed may have no tick
      count,
      { timeout },
    )
    return this.charts()
  }

  /** Waits until every chart has so many points, at most some seconds; answers what there is then. */
  async untilPoints(points: number, timeout = 5000): Promise<ChartState[]> {
    const end = Date.now() + timeout
    for (;;) {
      const charts = await this.charts()
      if (charts.every((chart) => chart.points === points) || Date.now() > end) return charts
      await this.page.waitForTimeout(100)
    }
  }

  /** Brings a chart to the middle of the window. */
  async scrollTo(index: number): Promise<void> {
    await this.page
      .locator('.js-plotly-plot')
      .nth(index)
      .evaluate((node) => node.scrollIntoView({ block: 'center' }))
  }

  /** Zooms a chart to the middle fifth of its width, by the mouse; again where the page scrolled under it. */
  async zoom(index: number): Promise<void> {
    const chart = this.page.locator('.js-plotly-plot').nth(index)
    for (let attempt = 0; attempt < 5; attempt++) {
      await chart.evaluate((node) => node.scrollIntoView({ block: 'center' }))
      const box = await chart.locator('.nsewdrag').first().boundingBox()
      if (!box) throw new Error(`chart ${index} is not on the page`)
      const y = box.y + box.height / 2
      await this.page.mouse.move(box.x + box.width * 0.4, y)
      await this.page.mouse.down()
      await this.page.mouse.move(box.x + box.width * 0.5, y, { steps: 3 })
      await this.page.mouse.move(box.x + box.width * 0.6, y)
      await this.page.mouse.up()
      await this.page.waitForTimeout(200)
      if (await chart.evaluate((node) => (node as unknown as PlotlyNode).arborZoom?.['xaxis'] !== undefined)) return
    }
    throw new Error(`chart ${index} does not zoom`)
  }

  /** Moves the pointer to a point of the first series, in the middle of what the chart shows. */
  async pointAt(index: number): Promise<void> {
    const chart = this.page.locator('.js-plotly-plot').nth(index)
    const at = await chart.evaluate((node) => {
      const { data, _fullLayout } = node as unknown as PlotlyNode
      const { xaxis, yaxis } = _fullLayout
      const x = Math.round((xaxis.range[0]! + xaxis.range[1]!) / 2)
      const y = data[0]!.y[data[0]!.x.indexOf(x)]!
      return { x: xaxis.d2p(x), y: yaxis.d2p(y) }
    })
    const box = await chart.locator('.nsewdrag').boundingBox()
    if (!box) throw new Error(`chart ${index} is not on the page`)
    await this.page.mouse.move(box.x + at.x - 5, box.y + at.y)
    await this.page.mouse.move(box.x + at.x, box.y + at.y, { steps: 3 })
  }

  /** Frames of the page and drawings of charts a second, over this time. */
  async countFor(ms: number): Promise<{ frames: number; draws: number }> {
    await this.startCounting()
    await this.page.waitForTimeout(ms)
    return this.counted()
  }

  private async startCounting(): Promise<void> {
    await this.page.evaluate(() => {
      const counted = { since: performance.now(), frames: 0, draws: 0 }
      const shared = window as unknown as {
        counted: typeof counted
        Plotly?: { react(...args: unknown[]): unknown; counts?: boolean }
      }
      shared.counted = counted
      const frame = () => {
        if (shared.counted !== counted) return
        counted.frames++
        requestAnimationFrame(frame)
      }
      requestAnimationFrame(frame)
      const { Plotly } = shared
      if (!Plotly || Plotly.counts) return
      const react = Plotly.react
      Plotly.counts = true
      Plotly.react = (...args) => {
        shared.counted.draws++
        return react(...args)
      }
    })
  }

  private counted(): Promise<{ frames: number; draws: number }> {
    return this.page.evaluate(() => {
      const { counted } = window as unknown as { counted: { since: number; frames: number; draws: number } }
      const seconds = (performance.now() - counted.since) / 1000
      return { frames: counted.frames / seconds, draws: counted.draws / seconds }
    })
  }
}

export interface ChartState {
  readonly points: number
  readonly range: readonly number[]
  /** Of the text on its axes. */
  readonly colour: string
  readonly width: number
}

interface PlotlyNode {
  readonly data: readonly { readonly x: readonly number[]; readonly y: readonly number[] }[]
  readonly layout: { readonly xaxis: { readonly range: readonly number[] } }
  /** Set by kernels/jupyter/charts. */
  readonly arborZoom?: Readonly<Record<string, readonly number[]>>
  readonly _fullLayout: { readonly xaxis: PlotlyAxis; readonly yaxis: PlotlyAxis }
}

interface PlotlyAxis {
  readonly range: readonly number[]
  /** Data to pixels. */
  d2p(value: number): number
}
