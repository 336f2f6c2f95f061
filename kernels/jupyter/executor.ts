// Runs the cells of one TypeScript notebook in this process, state kept between them. It knows nothing of Jupyter's protocol:
// `arbor-nb run` writes what it reports into a file, a kernel sends the same over its sockets.

import { existsSync, readFileSync } from 'node:fs'
import vm from 'node:vm'
import { type CompiledCode, type Compiler, createCompiler } from './compiler'
import { type Answer, answer, type LanguageQuestion } from './language'
import { bundleNow, type MimeBundle } from './mime'
import { CellModules } from './modules'
import { type CommContent, type CommOptions, type CommType, type DisplayEvent, Notebook } from './notebook'
import { ownPackageFolder } from './own-package'
import { type CellError, Sources } from './positions'
import { CellStreams, type StreamSink } from './streams'

export type { DisplayEvent, DisplayHost } from './notebook'

export interface ExecutorOptions {
  /** The notebook's folder: imports and file names in cells start here. Give the process the same one by `process.chdir`. */
  readonly cwd: string
  readonly onStream: StreamSink
  readonly onDisplay: (event: DisplayEvent) => void
  readonly onClear?: (event: { cell: string; wait: boolean }) => void
  /** Asks a person; absent where there is none. */
  readonly onPrompt?: (event: { cell: string; question: string; password: boolean }) => Promise<string>
  readonly onComm?: (event: { cell: string | null; type: CommType; content: CommContent; options: CommOptions }) => void
  /** What `import 'arbor-nb'` means where none is installed above `cwd`; our own package unless given. */
  readonly ownPackage?: string
  /** The running cell's code has read the host's signal. */
  readonly onHeed?: () => void
  /** Wraps each use of the compiler, which must not be cut short. */
  readonly guard?: <T>(work: () => T) => T
  /** Ctrl-C ends a loop that waits for nothing. Default: true. */
  readonly breakOnSigint?: boolean
}

/** `value` is the raw value of the last expression (absent when there is none or it is undefined); mime.ts turns it into a bundle. */
export type CellResult = { status: 'ok'; value?: unknown } | ({ status: 'error' } & CellError)

export interface Executor {
  /** Runs one cell to its end. `cellName` is the file name in stacks, e.g. cell-3.ts. Never rejects; one cell at a time. */
  execute(code: string, options: { cellName: string }): Promise<CellResult>
  /** What a notebook shows of `value`, as code of the last cell. Rejects with what the value's own method throws, or when interrupted. */
  show(value: unknown): Promise<MimeBundle>
  /**
   * Ends the running cell with an error named KeyboardInterrupt. Code that has read the host's signal gets ten seconds to end by
   * itself, or until the second interrupt; other code that waits goes on unseen.
   */
  interrupt(): void
  /** Completion, inspection, completeness. */
  ask(question: LanguageQuestion): Answer
  /** A comm message of the frontend. */
  receiveComm(type: CommType, content: CommContent, buffers: readonly Uint8Array[]): void
  /** Tells an error that nobody caught (a timer, a forgotten promise) in the notebook's own lines. */
  describe(error: unknown): CellError
  /** The cell whose code is running now, else the last one. */
  current(): string
  /** The running cell has given up the thread: it waits for something, and can be left. */
  waits(): boolean
  /** Builds the compiler ahead of the first cell; `anew` after one was cut short. */
  prepare(anew?: boolean): void
  close(): void
}

const CELL = Symbol.for('arbor-nb.cell')
const shared = globalThis as unknown as Record<symbol, unknown>
/** For code that heeds the signal. */
const GRACE_MS = 10_000

export class Interrupted extends Error {
  override readonly name = 'KeyboardInterrupt'
}

export function createExecutor(options: ExecutorOptions): Executor {
  return new NotebookExecutor(options)
}

class NotebookExecutor implements Executor {
  private readonly ownPackage: string
  private readonly sources = new Sources()
  private readonly streams: CellStreams
  private readonly modules: CellModules
  private readonly notebook: Notebook
  private readonly variables = createVariables()
  private compiler: Compiler | null = null
  private declarations = ''
  private cell = 'cell.ts'
  private run = new Run()

  constructor(private readonly options: ExecutorOptions) {
    this.ownPackage = options.ownPackage ?? ownPackageFolder()
    const lookUp = (id: string, folder: string) => this.compiler?.localFile(id, folder) ?? null
    this.modules = new CellModules(options.cwd, this.ownPackage, lookUp)
    this.streams = new CellStreams(options.onStream)
    this.notebook = this.openNotebook()
    // A deep library call must not hide the cell's own frame.
    Error.stackTraceLimit = Math.max(Error.stackTraceLimit, 50)
  }

  async execute(code: string, { cellName }: { cellName: string }): Promise<CellResult> {
    this.cell = cellName
    this.run = new Run()
    const compiled = this.guarded((compiler) => compiler.compile(this.declarations, code))
    if ('diagnostics' in compiled)
      return { status: 'error', ...this.sources.describeDiagnostics(compiled.diagnostics, cellName, code) }
    const { cell } = compiled
    this.sources.add(cellName, cell, { text: code, offset: 1 })
    for (const module of cell.modules) this.addModule(module)
    try {
      await this.within(async () => {
        if (cell.imports.length > 0) await this.modules.prepare(cell.imports)
        await this.evaluate(cell.code, cellName)
      })
    } catch (error) {
      return { status: 'error', ...this.sources.describe(asInterrupt(error), cellName) }
    }
    this.declarations = cell.declarations
    return { status: 'ok', ...this.takeResult(cell.resultName) }
  }

  async show(value: unknown): Promise<MimeBundle> {
    if (value instanceof Error) return { 'text/plain': this.sources.describe(value, this.cell).traceback.join('\n') }
    return (await this.within(() => bundleNow(value))) as MimeBundle
  }

  interrupt(): void {
    // What listens to the signal is code of the cell.
    this.streams.run(this.cell, () => this.run.interrupt())
  }

  ask(question: LanguageQuestion): Answer {
    return this.guarded((compiler) => answer(question, compiler, this.declarations))
  }

  receiveComm(type: CommType, content: CommContent, buffers: readonly Uint8Array[]): void {
    this.streams.run(this.cell, () => this.notebook.receive(type, content, buffers))
  }

  describe(error: unknown): CellError {
    return this.sources.describe(error, this.current())
  }

  current(): string {
    return this.streams.current() ?? this.cell
  }

  waits(): boolean {
    return this.run.waiting
  }

  prepare(anew = false): void {
    if (anew) this.compiler = null
    // The first conversion reads most of the libraries' types.
    this.guarded((compiler) => compiler.compile('', 'const ready: number[] = [1].map((x) => x)\nconsole.log(ready)'))
  }

  close(): void {
    this.compiler?.close()
    this.streams.restore()
    this.notebook.close()
    delete shared[CELL]
  }

  private guarded<T>(use: (compiler: Compiler) => T): T {
    const work = () => use((this.compiler ??= createCompiler(this.options.cwd, this.ownPackage)))
    return this.options.guard ? this.options.guard(work) : work()
  }

  /** Runs `work` as code of the cell, to its end or to an interrupt. */
  private within(work: () => unknown): Promise<unknown> {
    const { run } = this
    run.abort.signal.throwIfAborted()
    run.waiting = false
    const working = this.streams.run(this.cell, work)
    run.waiting = true
    return Promise.race([working, run.left])
  }

  /** An async function even for plain code: `await` and `for await` just work, and plain code still runs at once. */
  private evaluate(code: string, filename: string): Promise<unknown> {
    const { cwd, breakOnSigint = true } = this.options
    shared[CELL] = [this.variables, this.modules.require, { exports: this.variables }, this.modules.require.meta.filename, cwd]
    const script = `(async function (exports, require, module, __filename, __dirname) {\n${code}\n})(...globalThis[Symbol.for('arbor-nb.cell')])`
    try {
      return vm.runInThisContext(script, { filename, lineOffset: -1, breakOnSigint }) as Promise<unknown>
    } finally {
      if (breakOnSigint) renewSigintListeners()
    }
  }

  private takeResult(name: string | null): { value?: unknown } {
    if (name === null) return {}
    const value = this.variables[name]
    delete this.variables[name]
    return value === undefined ? {} : { value }
  }

  private addModule(module: CompiledCode & { path: string }): void {
    const written = module.path.replace(/\.js$/, '.ts')
    const file = [written, `${written}x`, module.path].find(existsSync) ?? module.path
    this.sources.add(module.path, module, { text: existsSync(file) ? readFileSync(file, 'utf8') : '', shownAs: file })
    this.modules.add(module.path, module.code)
  }

  private openNotebook(): Notebook {
    const { onDisplay, onClear, onPrompt, onComm } = this.options
    const outside = (work: (cell: string) => void) => {
      const cell = this.current()
      this.streams.outside(() => work(cell))
    }
    return new Notebook({
      show: (bundle, displayId, update) => outside((cell) => onDisplay({ cell, bundle, displayId, update })),
      clear: (wait) => outside((cell) => onClear?.({ cell, wait })),
      prompt: async (question, password) => {
        if (onPrompt) return onPrompt({ cell: this.current(), question, password })
        throw new Error(`prompt(${JSON.stringify(question)}): nobody is there to answer; set the value in the notebook`)
      },
      comm: (type, content, options) => outside((cell) => onComm?.({ cell, type, content, options })),
      signal: () => {
        const byCell = this.streams.current() !== null
        if (byCell) this.options.onHeed?.()
        return this.run.signal(byCell)
      },
    })
  }
}

/** One cell's run, and how it can be left before its end. */
class Run {
  readonly abort = new AbortController()
  /** Rejects when the run is left. */
  readonly left: Promise<never>
  waiting = false
  private leave: (error: Error) => void = () => undefined
  private heeded = false

  constructor() {
    this.left = new Promise((_, reject) => (this.leave = reject))
    this.left.catch(() => undefined) // a run that is never left, or left after its end
  }

  /** Code of the cell that asks for the signal is trusted to end by itself. */
  signal(byCell: boolean): AbortSignal {
    this.heeded ||= byCell
    return this.abort.signal
  }

  interrupt(): void {
    const error = new Interrupted('The cell was interrupted')
    const first = !this.abort.signal.aborted
    this.abort.abort(error)
    if (first && this.heeded) setTimeout(this.leave, GRACE_MS, error).unref()
    else this.leave(error)
  }
}

/** The object that holds all cells' variables. Imported names come as getters; kept as values, a later cell can declare them again. */
function createVariables(): Record<string, unknown> {
  const variables: Record<string, unknown> = {}
  return new Proxy(variables, {
    defineProperty(_target, name, { get, value }) {
      if (typeof name === 'string' && name !== '__esModule') variables[name] = get ? get() : value
      return true
    },
  })
}

/**
 * While `breakOnSigint` watches, Node takes the signal for itself; a listener that the cell adds meanwhile would leave the process
 * without any handler afterwards, so that Ctrl-C kills it. Removing and adding all of them installs the handler again.
 */
function renewSigintListeners(): void {
  const listeners = process.rawListeners('SIGINT') as (() => void)[]
  process.removeAllListeners('SIGINT')
  for (const listener of listeners) process.on('SIGINT', listener)
}

/** Ctrl-C inside a plain loop reaches us as V8's own error. */
function asInterrupt(error: unknown): unknown {
  const code = (error as { code?: unknown } | null)?.code
  return code === 'ERR_SCRIPT_EXECUTION_INTERRUPTED' ? new Interrupted('The cell was interrupted') : error
}
