// Executes a notebook's code cells in order and puts what they show into it. Tells a listener what happens; prints nothing.

import { createExecutor, type DisplayEvent, type Executor } from '../../kernels/jupyter/executor'
import { bundleOf } from '../../kernels/jupyter/mime'
import type { CellError } from '../../kernels/jupyter/positions'
import { type Bundle, type CodeCell, type DisplayOutput, hasTag, isCode, type Notebook, type ResultOutput } from './notebook'
import { INJECTED } from './notebook-parameters'

export interface RunListener {
  /** The headings of the prose that leads to the next cell, first to last. */
  onHeadings?(headings: readonly string[]): void
  /** A cell begins; `number` counts from 1, and is In[number] in the executed file. */
  onCell?(cell: CodeCell, number: number, total: number): void
  onCellEnd?(cell: CodeCell, seconds: number): void | Promise<void>
  onStream?(name: 'stdout' | 'stderr', text: string): void
  /** A display or a result; `update` when it replaces an earlier one. */
  onOutput?(bundle: Bundle, update: boolean): void
}

/** How a run ended: `failure` is the first error that no `raises-exception` tag allows. */
export interface RunOutcome {
  readonly failure: (CellError & { cellNumber: number }) | null
}

export class NotebookRunner {
  private readonly executor: Executor
  private readonly cells = new Map<string, CodeCell>()
  private readonly displays = new Map<string, DisplayOutput[]>()
  private current: CodeCell | null = null
  private interrupted = false

  constructor(
    private readonly notebook: Notebook,
    cwd: string,
    private readonly listener: RunListener = {},
  ) {
    this.executor = createExecutor({
      cwd,
      onStream: ({ cell, name, text }) => this.addText(cell, name, text),
      onDisplay: (event) => this.addDisplay(event),
      onClear: ({ cell }) => void this.cells.get(cell)?.outputs.splice(0),
    })
  }

  /** Runs until the last cell, the first failure or an interrupt. Outputs of an earlier run are dropped. */
  async run(): Promise<RunOutcome> {
    const all = this.notebook.cells.filter(isCode)
    for (const cell of all) Object.assign(cell, { outputs: [], execution_count: null })
    const cells = all.filter((cell) => cell.source.trim() !== '')
    for (const [index, cell] of cells.entries()) {
      if (this.interrupted) break
      const headings = this.headingsBefore(cell)
      if (headings.length > 0) this.listener.onHeadings?.(headings)
      this.listener.onCell?.(cell, index + 1, cells.length)
      const error = await this.runCell(cell, index + 1)
      if (error && !hasTag(cell, 'raises-exception')) return { failure: { ...error, cellNumber: index + 1 } }
    }
    return { failure: null }
  }

  private headingsBefore(cell: CodeCell): string[] {
    const before = this.notebook.cells.slice(0, this.notebook.cells.indexOf(cell))
    const prose = before.slice(before.findLastIndex(isCode) + 1)
    const text = prose.map(({ source }) => source.replace(/^```[\s\S]*?^```/gm, '')).join('\n')
    return [...text.matchAll(/^#{1,4} +(.+?) *#*$/gm)].map(([, heading]) => heading!)
  }

  /** Ends the running cell with an error; no further cell begins. */
  interrupt(): void {
    this.interrupted = true
    this.executor.interrupt()
  }

  /** Shows an error that nobody caught under the running cell. */
  addStray(error: unknown): void {
    const { traceback } = this.executor.describe(error)
    const name = [...this.cells].find(([, cell]) => cell === this.current)?.[0]
    if (name) this.addText(name, 'stderr', `Not caught: ${traceback.join('\n')}\n`)
  }

  close(): void {
    this.executor.close()
  }

  private async runCell(cell: CodeCell, number: number): Promise<CellError | null> {
    const cellName = `cell-${number}.ts`
    this.cells.set(cellName, cell)
    this.current = cell
    cell.execution_count = number
    const started = new Date()
    const result = await this.executor.execute(cell.source, { cellName })
    // The value of `steps = 3` in the cell of parameters is no news.
    const value = result.status === 'ok' && !hasTag(cell, INJECTED) ? result.value : undefined
    const failed = result.status === 'error' ? result : await this.addResult(cell, value)
    if (failed)
      cell.outputs.push({ output_type: 'error', ename: failed.ename, evalue: failed.evalue, traceback: failed.traceback })
    const ended = new Date()
    // The names under which JupyterLab records a cell's times.
    cell.metadata.execution = { 'iopub.execute_input': started.toISOString(), 'shell.execute_reply': ended.toISOString() }
    await this.listener.onCellEnd?.(cell, (ended.getTime() - started.getTime()) / 1000)
    return failed
  }

  private async addResult(cell: CodeCell, value: unknown): Promise<CellError | null> {
    if (value === undefined) return null
    try {
      const data = await bundleOf(value)
      const count = cell.execution_count ?? 0
      const output: ResultOutput = { output_type: 'execute_result', data, metadata: {}, execution_count: count }
      cell.outputs.push(output)
      this.listener.onOutput?.(data, false)
      return null
    } catch (error) {
      return this.executor.describe(error)
    }
  }

  private addText(cellName: string, name: 'stdout' | 'stderr', text: string): void {
    const outputs = this.cells.get(cellName)?.outputs
    const last = outputs?.at(-1)
    if (last?.output_type === 'stream' && last.name === name) last.text += text
    else outputs?.push({ output_type: 'stream', name, text })
    this.listener.onStream?.(name, text)
  }

  private addDisplay({ cell, bundle, displayId, update }: DisplayEvent): void {
    const earlier = displayId === null ? [] : (this.displays.get(displayId) ?? [])
    for (const output of earlier) output.data = bundle
    if (!update) {
      const output: DisplayOutput = { output_type: 'display_data', data: bundle, metadata: {} }
      this.cells.get(cell)?.outputs.push(output)
      if (displayId !== null) this.displays.set(displayId, [...earlier, output])
    }
    this.listener.onOutput?.(bundle, update)
  }
}
