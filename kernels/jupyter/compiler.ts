// TypeScript of a cell → JavaScript, by tslab's converter. tslab keeps its TypeScript to itself, so the converter is loaded over a copy
// of that module with two functions wrapped: one to choose compiler options (which packages a cell sees), one to keep source maps.

import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, parse } from 'node:path'
import type { RawSourceMap } from './positions'
import { expandShorthands } from './shorthands'

/** A fault found before the cell ran. `line` and `column` count from 1; `file` is null for the cell itself. */
export interface Diagnostic {
  readonly file: string | null
  readonly line: number
  readonly column: number
  readonly length: number
  readonly code: number
  readonly message: string
}

/** JavaScript with the two maps that lead back to the TypeScript: first printed → source, then CommonJS → printed. */
export interface CompiledCode {
  readonly code: string
  readonly maps: readonly RawSourceMap[]
}

export interface CompiledCell extends CompiledCode {
  /** The written column of a column (both from 1) in what was compiled. */
  readonly writtenColumn: (line: number, column: number) => number
  /** Types of everything declared so far; given back with the next cell. */
  readonly declarations: string
  /** Name under which the value of the last expression is exported. */
  readonly resultName: string | null
  /** Local modules that the cell imports, compiled anew because they are new or changed. */
  readonly modules: readonly (CompiledCode & { path: string })[]
}

export interface Compiler {
  /** `declarations` is what the last successful cell gave. */
  compile(declarations: string, code: string): { diagnostics: readonly Diagnostic[] } | { cell: CompiledCell }
  close(): void
}

interface TslabDiagnostic {
  start: { offset: number; line: number; character: number }
  end: { offset: number }
  messageText: string
  code: number
  fileName?: string
}
interface Converted {
  output?: string
  declOutput?: string
  diagnostics: TslabDiagnostic[]
  lastExpressionVar?: string
  sideOutputs?: { path: string; data: string }[]
}
type Converter = { convert(declarations: string, code: string): Converted; close(): void }
type CompilerOptions = Record<string, unknown>
type Transpiled = { outputText: string; sourceMapText?: string }
type System = { watchFile(path: string, ...rest: unknown[]): { close(): void }; getCurrentDirectory(): string }
type TypeScriptModule = Record<string, unknown> & {
  sys: System
  createWatchCompilerHost(roots: string[], options: CompilerOptions, system: System, ...rest: unknown[]): unknown
  transpileModule(code: string, options: { compilerOptions: CompilerOptions }): Transpiled
}

const load = createRequire(__filename)
const SOURCE_MAP = /\/\/# sourceMappingURL=(?:data:application\/json;base64,)?(\S+)\s*$/

/** What the wrapped TypeScript reads (options of the converter being built) and writes (maps by output text). */
const shared: { cwd: string; options: CompilerOptions; maps: Map<string, RawSourceMap[]> } = {
  cwd: '',
  options: {},
  maps: new Map(),
}
let createConverter: (() => Converter) | null = null

/** The folder of the package this file belongs to: what `import 'arbor-nb'` means where no nearer one is installed. */
export function ownPackageFolder(): string {
  for (let folder = __dirname; folder !== parse(folder).root; folder = dirname(folder)) {
    const file = join(folder, 'package.json')
    if (existsSync(file) && JSON.parse(readFileSync(file, 'utf8')).name === 'arbor-nb') return folder
  }
  throw new Error(`No package.json of arbor-nb above ${__dirname}: the installation is incomplete; install arbor-nb again`)
}

/** A compiler for the cells of one notebook in folder `cwd`. Takes 2 s: it loads TypeScript and Node's types. */
export function createCompiler(cwd: string, ownPackage: string): Compiler {
  createConverter ??= loadConverter()
  shared.cwd = cwd
  shared.options = { ...nodeTypes(cwd), ...packageFallback(cwd, ownPackage) }
  const converter = createConverter()
  return {
    compile(declarations, code) {
      shared.maps.clear()
      const expanded = expandShorthands(code)
      const converted = converter.convert(declarations, expanded.code)
      if (converted.diagnostics.length > 0) {
        const written = (d: Diagnostic) => (d.file ? d : { ...d, column: expanded.writtenColumn(d.line, d.column) })
        return { diagnostics: converted.diagnostics.map(toDiagnostic).map(written) }
      }
      return {
        cell: {
          ...withMaps(converted.output ?? ''),
          writtenColumn: expanded.writtenColumn,
          declarations: converted.declOutput ?? '',
          resultName: converted.lastExpressionVar ?? null,
          modules: (converted.sideOutputs ?? []).map(({ path, data }) => ({ path, ...withMaps(data) })),
        },
      }
    },
    close: () => converter.close(),
  }
}

/** Names of the variables that `code` declares at its top level, in order; `const` ones only if asked for. */
export function declaredNames(code: string, kind: 'const' | 'all' = 'all'): string[] {
  const ts = load('@tslab/typescript-for-tslab') as typeof import('typescript')
  const names: string[] = []
  for (const statement of ts.createSourceFile('cell.ts', code, ts.ScriptTarget.ES2022).statements) {
    if (!ts.isVariableStatement(statement)) continue
    if (kind === 'const' && !(statement.declarationList.flags & ts.NodeFlags.Const)) continue
    for (const { name } of statement.declarationList.declarations) if (ts.isIdentifier(name)) names.push(name.text)
  }
  return names
}

function loadConverter(): () => Converter {
  const tslab = createRequire(load.resolve('tslab/package.json'))
  const path = tslab.resolve('@tslab/typescript-for-tslab')
  const original = tslab(path) as TypeScriptModule
  const cached = load.cache[path]
  if (cached) cached.exports = wrapTypeScript(original)
  const { createConverter: create } = tslab('./dist/converter.js') as { createConverter(): Converter }
  if (cached) cached.exports = original
  return create
}

function wrapTypeScript(original: TypeScriptModule): TypeScriptModule {
  const sys: System = Object.create(original.sys)
  sys.getCurrentDirectory = () => shared.cwd
  return {
    ...original,
    sys,
    createWatchCompilerHost(roots, options, system, ...rest) {
      const watch = system.watchFile
      // Installed packages don't change under a running notebook; 150 watchers saved.
      system.watchFile = (path, ...more) =>
        path.includes('/node_modules/') ? { close: () => undefined } : watch.call(system, path, ...more)
      return original.createWatchCompilerHost(roots, { ...options, inlineSourceMap: true, ...shared.options }, system, ...rest)
    },
    transpileModule(code, options) {
      const map = SOURCE_MAP.exec(code)
      const compilerOptions = { ...options.compilerOptions, sourceMap: true }
      const result = original.transpileModule(code.replace(SOURCE_MAP, ''), { ...options, compilerOptions })
      const outputText = result.outputText.replace(SOURCE_MAP, '')
      const first = map ? [JSON.parse(Buffer.from(map[1] ?? '', 'base64').toString()) as RawSourceMap] : []
      shared.maps.set(outputText, [...first, JSON.parse(result.sourceMapText ?? '{}') as RawSourceMap])
      return { ...result, outputText }
    },
  }
}

/** Node's types: the notebook's own `@types/node` if it has one, else the one installed with tslab. */
function nodeTypes(cwd: string): CompilerOptions {
  const near = resolveFrom(join(cwd, 'cell.js'), '@types/node/package.json')
  const file = near ?? createRequire(load.resolve('tslab/package.json')).resolve('@types/node/package.json')
  return { types: ['node'], typeRoots: [dirname(dirname(file))] }
}

function packageFallback(cwd: string, ownPackage: string): CompilerOptions {
  return resolveFrom(join(cwd, 'cell.js'), 'arbor-nb/package.json') ? {} : { paths: { 'arbor-nb': [ownPackage] } }
}

/** Path of module `id` as seen from `file`, or null when there is none. */
export function resolveFrom(file: string, id: string): string | null {
  try {
    return createRequire(file).resolve(id)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'MODULE_NOT_FOUND') return null
    throw error
  }
}

function withMaps(code: string): CompiledCode {
  return { code, maps: shared.maps.get(code) ?? [] }
}

function toDiagnostic({ start, end, messageText, code, fileName }: TslabDiagnostic): Diagnostic {
  const length = Math.max(1, end.offset - start.offset)
  return { file: fileName ?? null, line: start.line + 1, column: start.character + 1, length, code, message: messageText }
}
