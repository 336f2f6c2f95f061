// Runs the cells of one TypeScript notebook in this process, state kept between them. It knows nothing of Jupyter's protocol:
// `arbor-nb run` writes what it reports into a file, a kernel sends the same over its sockets.

import { existsSync, readFileSync } from 'node:fs'
import vm from 'node:vm'
import { type CompiledCode, type Compiler, createCompiler, ownPackageFolder } from './compiler'
import type { MimeBundle } from './mime'
import { CellModules } from './modules'
import { type CellError, Sources } from './positions'
import { CellStreams, type StreamSink } from './streams'

export interface DisplayEvent {
  readonly cell: string
  readonly bundle: MimeBundle
  /** Names the output so that it can be replaced; null = can't be. */
  readonly displayId: string | null
  /** Replace what `displayId` shows rather than add an output. */
  readonly update: boolean
}

export interface ExecutorOptions {
  /** The notebook's folder: imports and file names in cells start here. Give the process the same one by `process.chdir`. */
  readonly cwd: string
  readonly onStream: StreamSink
  readonly onDisplay: (event: DisplayEvent) => void
  /** What `import 'arbor-nb'` means where none is installed above `cwd`; our own package unless given. */
  readonly ownPackage?: string
}

/** `value` is the raw value of the last expression (absent when there is none or it is undefined); mime.ts turns it into a bundle. */
export type CellResult = { status: 'ok'; value?: unknown } | ({ status: 'error' } & CellError)

/** What library code finds under `Symbol.for('arbor-nb.display-host')` on globalThis while a notebook runs. */
export interface DisplayHost {
  display(bundle: MimeBundle, options?: { displayId?: string }): void
  update(bundle: MimeBundle, displayId: string): void
  /** Aborted when the running cell is interrupted. */
  readonly signal: AbortSignal
}

export interface Executor {
  /** Runs one cell to its end. `cellName` is the file name in stacks, e.g. cell-3.ts. Never rejects; one cell at a time. */
  execute(code: string, options: { cellName: string }): Promise<CellResult>
  /** Ends the running cell with an error named KeyboardInterrupt. Code that waits goes on unseen unless it heeds the host's signal. */
  interrupt(): void
  /** Tells an error that nobody caught (a timer, a forgotten promise) in the notebook's own lines. */
  describe(error: unknown): CellError
  close(): void
}

const HOST = Symbol.for('arbor-nb.display-host')
const CELL = Symbol.for('arbor-nb.cell')
const shared = globalThis as unknown as Record<symbol, unknown>

class Interrupted extends Error {
  override readonly name = 'KeyboardInterrupt'
}

export function createExecutor(options: ExecutorOptions): Executor {
  return new NotebookExecutor(options)
}

class NotebookExecutor implements Executor {
  private readonly compiler: Compiler
  private readonly sources = new Sources()
  private readonly streams: CellStreams
  private readonly modules: CellModules
  private readonly variables = createVariables()
  private declarations = ''
  private cell = 'cell.ts'
  private abort = new AbortController()

  constructor(private readonly options: ExecutorOptions) {
    const ownPackage = options.ownPackage ?? ownPackageFolder()
    this.compiler = createCompiler(options.cwd, ownPackage)
    this.modules = new CellModules(options.cwd, ownPackage)
    this.streams = new CellStreams(options.onStream)
    shared[HOST] = this.host()
    // A deep library call must not hide the cell's own frame.
    Error.stackTraceLimit = Math.max(Error.stackTraceLimit, 50)
  }

  async execute(code: string, { cellName }: { cellName: string }): Promise<CellResult> {
    this.cell = cellName
    this.abort = new AbortController()
    const compiled = this.compiler.compile(this.declarations, code)
    if ('diagnostics' in compiled)
      return { status: 'error', ...this.sources.describeDiagnostics(compiled.diagnostics, cellName, code) }
    const { cell } = compiled
    this.sources.add(cellName, cell, { text: code, offset: 1 })
    for (const module of cell.modules) this.addModule(module)
    try {
      await this.streams.run(cellName, () => this.evaluate(cell.code, cellName))
    } catch (error) {
      return { status: 'error', ...this.sources.describe(asInterrupt(error), cellName) }
    }
    this.declarations = cell.declarations
    return { status: 'ok', ...this.takeResult(cell.resultName) }
  }

  interrupt(): void {
    this.abort.abort(new Interrupted('The cell was interrupted'))
  }

  describe(error: unknown): CellError {
    return this.sources.describe(error, this.cell)
  }

  close(): void {
    this.compiler.close()
    this.streams.restore()
    delete shared[HOST]
    delete shared[CELL]
  }

  /** An async function even for plain code: `await` and `for await` just work, and plain code still runs at once. */
  private evaluate(code: string, filename: string): Promise<unknown> {
    shared[CELL] = [this.variables, this.modules.require]
    const script = `(async function (exports, require) {\n${code}\n})(...globalThis[Symbol.for('arbor-nb.cell')])`
    const { signal } = this.abort
    const interrupted = new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }))
    try {
      const running = vm.runInThisContext(script, { filename, lineOffset: -1, breakOnSigint: true }) as Promise<unknown>
      return Promise.race([running, interrupted])
    } finally {
      renewSigintListeners()
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

  private host(): DisplayHost {
    const show = (bundle: MimeBundle, displayId: string | null, update: boolean) => {
      const cell = this.streams.current() ?? this.cell
      this.streams.outside(() => this.options.onDisplay({ cell, bundle, displayId, update }))
    }
    const signal = () => this.abort.signal
    return {
      display: (bundle, { displayId } = {}) => show(bundle, displayId ?? null, false),
      update: (bundle, displayId) => show(bundle, displayId, true),
      get signal() {
        return signal()
      },
    }
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
