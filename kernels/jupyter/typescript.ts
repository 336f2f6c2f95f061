// The TypeScript that tslab's converter runs on. tslab brings a fork of 5.0; here it gets the current TypeScript under the fork's name,
// with the few functions that the fork adds, and with hooks for what a notebook needs: its options, its globals, its source maps.

import { createRequire } from 'node:module'
import { join } from 'node:path'
import { documentationOf } from './documentation'
import type { RawSourceMap } from './positions'

export type TypeScript = typeof import('typescript')
export type CompilerOptions = import('typescript').CompilerOptions
type Node = import('typescript').Node
type SourceFile = import('typescript').SourceFile
type Program = import('typescript').Program
type TypeChecker = import('typescript').TypeChecker
type System = import('typescript').System

export interface Completions {
  readonly start: number
  readonly end: number
  readonly candidates: readonly string[]
  readonly original?: {
    readonly entries: readonly { name: string; kind: string; sortText: string; symbol?: import('typescript').Symbol }[]
  }
}

export interface ConvertedCell {
  readonly output?: string
  readonly declOutput?: string
  readonly diagnostics: readonly ConverterDiagnostic[]
  readonly lastExpressionVar?: string
  readonly sideOutputs?: readonly { path: string; data: string }[]
}

export interface ConverterDiagnostic {
  readonly start: { offset: number; line: number; character: number }
  readonly end: { offset: number }
  readonly messageText: string
  readonly code: number
  readonly fileName?: string
}

/** tslab's converter, as far as we use it. Positions are UTF-16 offsets. */
export interface Converter {
  convert(declarations: string, code: string): ConvertedCell
  complete(declarations: string, code: string, position: number): Completions
  inspect(declarations: string, code: string, position: number): import('typescript').QuickInfo | undefined
  close(): void
}

/** What the converter being built or running reads and writes. */
export interface ConverterHooks {
  readonly cwd: string
  readonly options: CompilerOptions
  /** Ambient declarations that every cell sees. */
  readonly globals: string
  /** Source maps of what was converted, by its text. */
  readonly maps: Map<string, RawSourceMap[]>
  /** The type checker of the last completion. */
  checker: TypeChecker | null
}

/** Functions of TypeScript that its declarations don't show; the version is pinned for their sake. */
interface Internals {
  nullTransformationContext: unknown
  getTouchingPropertyName(file: SourceFile, position: number): Node
  getContainerNode(node: Node): Node | undefined
  typeToDisplayParts(checker: TypeChecker, type: unknown, node?: Node): import('typescript').SymbolDisplayPart[]
  createTextSpanFromNode(node: Node, file: SourceFile): import('typescript').TextSpan
  SymbolDisplay: {
    getSymbolModifiers(checker: TypeChecker, symbol: unknown): string
    getSymbolDisplayPartsDocumentationAndSymbolKind(
      checker: TypeChecker,
      symbol: unknown,
      file: SourceFile,
      container: Node | undefined,
      node: Node,
    ): Omit<import('typescript').QuickInfo, 'kind' | 'kindModifiers' | 'textSpan'> & {
      symbolKind: import('typescript').ScriptElementKind
    }
  }
  Completions: { getCompletionsAtPosition(...args: unknown[]): Completions['original'] }
}

const load = createRequire(__filename)
const FORK = '@tslab/typescript-for-tslab'
const SOURCE_MAP = /\/\/# sourceMappingURL=(?:data:application\/json;base64,)?(\S+)\s*$/
/** A folder name under which modules from outside the notebook's folder are emitted: the converter refuses `..`. */
const OUTSIDE = '__outside__'

/** "File is not under rootDir": modules above the notebook's folder are welcome. */
const NOT_UNDER_ROOT = 6059

let hooks: ConverterHooks
let create: (() => Converter) | null = null

/** The compiler as everybody uses it. Takes 0.3 s the first time. */
export function typescript(): TypeScript {
  return load('typescript') as TypeScript
}

/** A converter under `given`; one at a time. Takes 1 to 2 s: it reads the libraries' types. */
export function createConverter(given: ConverterHooks): Converter {
  create ??= loadConverter()
  hooks = given
  return create()
}

/** Where a converted local module lies, if it was named for lying outside of `cwd`. */
export function modulePath(cwd: string, path: string): string {
  const prefix = join(cwd, OUTSIDE) + '/'
  return path.startsWith(prefix) ? join('/', path.slice(prefix.length)) : path
}

function loadConverter(): () => Converter {
  const tslab = createRequire(load.resolve('tslab/package.json'))
  const path = tslab.resolve(FORK)
  const Module = load('node:module') as typeof import('node:module')
  const stand = new Module(path)
  stand.exports = forTslab(typescript())
  stand.loaded = true
  const before = load.cache[path]
  load.cache[path] = stand
  try {
    return (tslab('./dist/converter.js') as { createConverter(): Converter }).createConverter
  } finally {
    if (before) load.cache[path] = before
    else delete load.cache[path]
  }
}

function forTslab(ts: TypeScript): unknown {
  const internals = ts as unknown as Internals
  const sys: System = Object.create(ts.sys)
  sys.getCurrentDirectory = () => hooks.cwd
  const globals = () => join(hooks.cwd, '__notebook__.d.ts')
  sys.readFile = (path, encoding) => (path === globals() ? hooks.globals : ts.sys.readFile(path, encoding))
  sys.fileExists = (path) => path === globals() || ts.sys.fileExists(path)
  return {
    ...ts,
    sys,
    getNullTransformationContext: () => internals.nullTransformationContext,
    getDefaultTypeRoots: () => [],
    getQuickInfoAtPosition: quickInfo(ts, internals),
    getPreEmitDiagnosticsOfFiles: (program: Program, files: readonly SourceFile[]) =>
      ts.sortAndDeduplicateDiagnostics(
        files
          .flatMap((file) => [
            ...program.getSyntacticDiagnostics(file),
            ...program.getSemanticDiagnostics(file),
            ...program.getDeclarationDiagnostics(file),
          ])
          .filter(({ code }) => code !== NOT_UNDER_ROOT),
      ),
    Completions: {
      getCompletionsAtPositionForTslab(
        host: unknown,
        program: Program,
        log: unknown,
        file: SourceFile,
        position: number,
        ...rest: unknown[]
      ) {
        hooks.checker = program.getTypeChecker()
        // preferences, triggerCharacter, completionKind, cancellationToken; then formatContext, and symbols with the entries.
        return internals.Completions.getCompletionsAtPosition(host, program, log, file, position, ...rest, undefined, true)
      },
    },
    createWatchCompilerHost: watchHost(ts, globals),
    transpileModule: transpile(ts),
  }
}

function watchHost(ts: TypeScript, globals: () => string) {
  return (roots: string[], options: CompilerOptions, system: System, ...rest: unknown[]) => {
    const watch = system.watchFile!
    // Installed packages don't change under a running notebook; 150 watchers saved.
    system.watchFile = (path, ...more) =>
      path.includes('/node_modules/') ? { close: () => undefined } : watch.call(system, path, ...more)
    separateTimers(system)
    const all = {
      ...options,
      noImplicitUseStrict: undefined,
      disableTopLevelAwait: undefined,
      inlineSourceMap: true,
      ...hooks.options,
    }
    const create = ts.createWatchCompilerHost as (...args: unknown[]) => WatchHost
    const host: WatchHost = create([...roots, globals()], all, system, ...rest)
    let listener: (builder: Builder) => void = () => undefined
    host.jsDocParsingMode = ts.JSDocParsingMode.ParseForTypeInfo // comments come from documentation.ts
    Object.defineProperty(host, 'afterProgramCreate', {
      get: () => (builder: Builder) => listener(withOutside(builder)),
      set: (given: typeof listener) => (listener = given),
    })
    return host
  }
}

/**
 * TypeScript waits before it forgets lookups that failed (a file may have come since); the converter has room for one timer, the one
 * that rebuilds, and throws at a second. This one runs by the clock.
 */
function separateTimers(system: System): void {
  const { setTimeout: rebuild, clearTimeout: cancel } = system
  system.setTimeout = (callback, ms, ...more) =>
    more[0] === 'timerToInvalidateFailedLookupResolutions'
      ? globalThis.setTimeout(callback, ms, ...more).unref()
      : rebuild!.call(system, callback, ms, ...more)
  system.clearTimeout = (timer) =>
    timer?.constructor?.name === 'Timeout' ? globalThis.clearTimeout(timer) : cancel!.call(system, timer)
}

interface WatchHost {
  afterProgramCreate?: (builder: Builder) => void
  jsDocParsingMode?: import('typescript').JSDocParsingMode
}

type WriteFile = (name: string, text: string, ...rest: unknown[]) => void
interface Builder {
  emit(file: SourceFile, write: WriteFile, ...rest: unknown[]): unknown
}

/** The builder, with files outside of the notebook's folder emitted under a name inside. */
function withOutside(builder: Builder): Builder {
  const { cwd } = hooks
  const wrapped = Object.create(builder) as Builder
  wrapped.emit = (file, write, ...rest) =>
    builder.emit(
      file,
      (name, text, ...more) => {
        const source = file.fileName
        const outside = !source.startsWith(`${cwd}/`) && name.endsWith('.js')
        write(outside ? join('outDir', OUTSIDE, source.replace(/\.tsx?$/, '.js')) : name, text, ...more)
      },
      ...rest,
    )
  return wrapped
}

/** ES modules → CommonJS, with the map of this second step beside the first one's. */
function transpile(ts: TypeScript) {
  return (code: string, options: import('typescript').TranspileOptions) => {
    const map = SOURCE_MAP.exec(code)
    const result = ts.transpileModule(code.replace(SOURCE_MAP, ''), {
      ...options,
      compilerOptions: { ...options.compilerOptions, noImplicitUseStrict: undefined, sourceMap: true },
      transformers: { before: [dynamicImports(ts)] },
    } as import('typescript').TranspileOptions)
    const outputText = result.outputText.replace(SOURCE_MAP, '')
    const first = map ? [JSON.parse(Buffer.from(map[1] ?? '', 'base64').toString()) as RawSourceMap] : []
    hooks.maps.set(outputText, [...first, JSON.parse(result.sourceMapText ?? '{}') as RawSourceMap])
    return { ...result, outputText }
  }
}

/** `import(x)` → `require.import(x)`, which can wait for modules that wait; `import.meta` → `require.meta`. */
function dynamicImports(ts: TypeScript): import('typescript').TransformerFactory<SourceFile> {
  return (context) => {
    const { factory } = context
    const member = (name: string) => factory.createPropertyAccessExpression(factory.createIdentifier('require'), name)
    const visit = (node: Node): Node => {
      const visited = ts.visitEachChild(node, visit, context)
      if (ts.isMetaProperty(visited) && visited.keywordToken === ts.SyntaxKind.ImportKeyword) return member('meta')
      if (ts.isCallExpression(visited) && visited.expression.kind === ts.SyntaxKind.ImportKeyword)
        return factory.updateCallExpression(visited, member('import'), undefined, visited.arguments)
      return visited
    }
    return (file) => ts.visitEachChild(file, visit, context)
  }
}

/** What a name is: its declaration in words, and its documentation. */
function quickInfo(ts: TypeScript, internals: Internals) {
  return (file: SourceFile, checker: TypeChecker, _token: unknown, position: number) => {
    const node = internals.getTouchingPropertyName(file, position)
    if (node === (file as Node)) return undefined
    const symbol = checker.getSymbolAtLocation(node)
    const textSpan = internals.createTextSpanFromNode(node, file)
    const container = internals.getContainerNode(node)
    if (symbol && !(checker as unknown as { isUnknownSymbol(s: unknown): boolean }).isUnknownSymbol(symbol)) {
      const told = internals.SymbolDisplay.getSymbolDisplayPartsDocumentationAndSymbolKind(checker, symbol, file, container, node)
      const { text, tags } = documentationOf(ts, symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol)
      const part = (content: string) => [{ kind: 'text', text: content }]
      return {
        ...told,
        documentation: part(text),
        tags: tags.map((tag) => ({ name: tag.name, text: part(tag.text) })),
        kind: told.symbolKind,
        kindModifiers: internals.SymbolDisplay.getSymbolModifiers(checker, symbol),
        textSpan,
      }
    }
    if (!ts.isIdentifier(node) && !ts.isExpression(node)) return undefined
    const type = checker.getTypeAtLocation(node)
    return {
      kind: ts.ScriptElementKind.unknown,
      kindModifiers: '',
      textSpan,
      displayParts: internals.typeToDisplayParts(checker, type, container),
      documentation: type.symbol?.getDocumentationComment(checker),
      tags: type.symbol?.getJsDocTags(checker),
    }
  }
}
