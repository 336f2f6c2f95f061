// What `arbor-nb run` shows while it runs: a line a cell, the cells' own output as it comes, and one live line for progress.

import type { CellError } from '../../kernels/jupyter/positions'
import type { Bundle, CodeCell } from './notebook'
import type { RunListener } from './notebook-runner'

/** Where lines go. Program output to stdout, ours to stderr. */
export interface TerminalStreams {
  readonly stdout: { write(text: string): unknown }
  readonly stderr: { write(text: string): unknown; isTTY?: boolean; columns?: number }
}

const STATUS_EVERY_MS = 5000
const RESULT_LINES = 12
/** What display/figure.ts has in the HTML of a live chart. */
const DRAWS = 'arborCharts.draw('

export class RunTerminal implements RunListener {
  private atLineStart = true
  /** The text of the live line now on screen (a terminal), or last known (a log). */
  private status = ''
  private unprinted = false
  private printedAt = 0

  constructor(private readonly streams: TerminalStreams) {}

  /** Where in the notebook we are: the nearest heading. */
  onHeadings(headings: readonly string[]): void {
    this.say(`\n${this.bold(headings.at(-1)!)}`)
  }

  onCell(cell: CodeCell, number: number, total: number): void {
    const first = cell.source.split('\n').find((line) => line.trim() !== '') ?? ''
    this.say(`${this.dim(`[${String(number).padStart(String(total).length)}/${total}]`)} ${first}`)
  }

  onCellEnd(_cell: CodeCell, seconds: number): void {
    this.settle()
    if (seconds >= 0.5) this.say(this.dim(`${' '.repeat(8)}${duration(seconds)}`))
  }

  onStream(name: 'stdout' | 'stderr', text: string): void {
    this.settle()
    this.streams[name].write(text)
    this.atLineStart = text.endsWith('\n')
  }

  /** Charts are for the page; of all else the text. An update rewrites the live line. */
  onOutput(bundle: Bundle, update: boolean): void {
    const text = typeof bundle['text/plain'] === 'string' ? bundle['text/plain'] : ''
    const chart = Object.keys(bundle).some((mime) => mime.endsWith('+json') || mime.startsWith('image/'))
    // A chart while it changes, which has its numbers in the live line already.
    const changing = !chart && String(bundle['text/html'] ?? '').includes(DRAWS)
    if (text === '' || changing || (update && chart)) return
    const lines = text.split('\n')
    if (update) {
      this.live(lines[0] ?? '')
      return
    }
    const left = lines.length - RESULT_LINES
    const rest = left > 1 ? [this.dim(`… ${left} more lines`)] : lines.slice(RESULT_LINES) // one line is no longer than the word of it
    this.settle()
    this.freshLine()
    this.streams.stdout.write(`${[...lines.slice(0, RESULT_LINES), ...rest].join('\n')}\n`)
  }

  failure(error: CellError, where: string): void {
    this.say(`\n${this.red(`${where}${error.line === undefined ? '' : `, line ${error.line}`} failed`)}`)
    this.say(error.traceback.join('\n'))
  }

  say(line: string): void {
    this.settle()
    this.freshLine()
    this.streams.stderr.write(`${line}\n`)
  }

  private live(text: string): void {
    if (text === this.status) return
    this.status = text
    this.unprinted = true
    if (this.streams.stderr.isTTY) {
      this.freshLine()
      this.streams.stderr.write(`\r\x1b[2K${text.slice(0, (this.streams.stderr.columns ?? 80) - 1)}`)
    } else if (Date.now() - this.printedAt >= STATUS_EVERY_MS) this.printStatus()
  }

  /** Makes the live line a lasting one. */
  private settle(): void {
    if (!this.unprinted) return
    if (this.streams.stderr.isTTY) this.streams.stderr.write('\n')
    else this.printStatus()
    this.unprinted = false
    this.status = ''
  }

  private printStatus(): void {
    this.freshLine()
    this.streams.stderr.write(`${this.status}\n`)
    this.printedAt = Date.now()
    this.unprinted = false
  }

  private freshLine(): void {
    if (!this.atLineStart) this.streams.stderr.write('\n')
    this.atLineStart = true
  }

  private bold(text: string): string {
    return this.streams.stderr.isTTY ? `\x1b[1m${text}\x1b[22m` : text
  }

  private dim(text: string): string {
    return this.streams.stderr.isTTY ? `\x1b[2m${text}\x1b[22m` : text
  }

  private red(text: string): string {
    return this.streams.stderr.isTTY ? `\x1b[31m${text}\x1b[39m` : text
  }
}

/** 0.7 s, 42 s, 3 min 5 s. */
export function duration(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(1)} s`
  if (seconds < 60) return `${Math.round(seconds)} s`
  const whole = Math.round(seconds)
  return `${Math.floor(whole / 60)} min ${whole % 60} s`
}
