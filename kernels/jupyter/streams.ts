// What a cell prints, kept with the cell that printed it: an AsyncLocalStorage follows timers and promises,
// so a line written long after the cell ended still belongs to it.

import { AsyncLocalStorage } from 'node:async_hooks'
import { Console } from 'node:console'

export type StreamName = 'stdout' | 'stderr'
export type StreamSink = (event: { cell: string; name: StreamName; text: string }) => void

type Write = (chunk: string | Uint8Array, ...rest: unknown[]) => boolean

/** The name of no cell. */
const OUTSIDE = ''

/** Routes `console`, `process.stdout` and `process.stderr` to `sink` while code of a cell runs; `restore` undoes it. */
export class CellStreams {
  private readonly running = new AsyncLocalStorage<string>()
  private readonly console = globalThis.console
  private readonly writes = { stdout: process.stdout.write, stderr: process.stderr.write }
  private readonly decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() }

  constructor(private readonly sink: StreamSink) {
    this.running.run(OUTSIDE, () => undefined) // switched on before any cell runs, for good (async-checks.ts)
    const streams = { stdout: this.stream('stdout'), stderr: this.stream('stderr') }
    // With `ignoreErrors`, console would listen for errors of a real stream.
    globalThis.console = new Console({ ...streams, colorMode: false, ignoreErrors: false })
    for (const name of ['stdout', 'stderr'] as const) process[name].write = this.patched(name) as typeof process.stdout.write
  }

  /** Runs `work` as code of `cell`. */
  run<T>(cell: string, work: () => T): T {
    return this.running.run(cell, work)
  }

  /** The cell whose code is running now, or null. */
  current(): string | null {
    const cell = this.running.getStore() ?? OUTSIDE
    return cell === OUTSIDE ? null : cell
  }

  /** Runs `work` as nobody's code: what it prints goes to the terminal. */
  outside<T>(work: () => T): T {
    return this.running.run(OUTSIDE, work) // not `exit`, which switches the storage off and on again
  }

  restore(): void {
    globalThis.console = this.console
    process.stdout.write = this.writes.stdout
    process.stderr.write = this.writes.stderr
  }

  private emit(name: StreamName, chunk: string | Uint8Array, cell: string): void {
    const text = typeof chunk === 'string' ? chunk : this.decoders[name].decode(chunk, { stream: true })
    if (text !== '') this.outside(() => this.sink({ cell, name, text }))
  }

  private patched(name: StreamName): Write {
    const original = this.writes[name] as Write
    return (chunk, ...rest) => {
      const cell = this.current()
      if (cell === null) return original.call(process[name], chunk, ...rest)
      this.emit(name, chunk, cell)
      const done = rest.find((argument) => typeof argument === 'function') as (() => void) | undefined
      if (done) process.nextTick(done)
      return true
    }
  }

  /**
   * A stream for `console`: to the cell when there is one, else to the process's own. No real Writable: one that is terminated in the
   * middle of a write would hold back all that follows.
   */
  private stream(name: StreamName): NodeJS.WritableStream {
    return { write: this.patched(name) } as unknown as NodeJS.WritableStream
  }
}
