// TypeScript of a cell → JavaScript, by tslab's converter over the current TypeScript (typescript.ts), with the names that the
// converter overlooks expanded first and the positions of faults led back to what was written.

import { join } from 'node:path'
import { compilerOptions } from './compiler-options'
import { GLOBALS } from './globals'
import type { RawSourceMap } from './positions'
import { expandShorthands } from './shorthands'
import {
  type Completions,
  type Converter,
  type ConverterDiagnostic,
  type ConverterHooks,
  createConverter,
  modulePath,
  typescript,
} from './typescript'

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
  /** Names that its import statements ask for. */
  readonly imports: readonly string[]
  /** Local modules that the cell imports, compiled anew because they are new or changed. */
  readonly modules: readonly (CompiledCode & { path: string })[]
}

/** `declarations` is always what the last successful cell gave; offsets count UTF-16 units. */
export interface Compiler {
  compile(declarations: string, code: string): { diagnostics: readonly Diagnostic[] } | { cell: CompiledCell }
  complete(declarations: string, code: string, offset: number): { completions: Completions; checker: TypeChecker | null }
  inspect(declarations: string, code: string, offset: number): QuickInfo | undefined
  /** The local file that a module name means by the notebook's tsconfig, or null; it ends in .ts, .tsx or .js. */
  localFile(id: string, folder: string): string | null
  close(): void
}

type TypeChecker = import('typescript').TypeChecker
type QuickInfo = import('typescript').QuickInfo

/** A compiler for the cells of one notebook in folder `cwd`. Takes 1 to 2 s: it loads TypeScript and Node's types. */
export function createCompiler(cwd: string, ownPackage: string): Compiler {
  return new CellCompiler(cwd, ownPackage)
}

class CellCompiler implements Compiler {
  private readonly hooks: ConverterHooks
  private readonly converter: Converter

  constructor(
    private readonly cwd: string,
    ownPackage: string,
  ) {
    this.hooks = { cwd, options: compilerOptions(cwd, ownPackage), globals: GLOBALS, maps: new Map(), checker: null }
    this.converter = createConverter(this.hooks)
  }

  compile(declarations: string, code: string): { diagnostics: readonly Diagnostic[] } | { cell: CompiledCell } {
    this.hooks.maps.clear()
    const expanded = expandShorthands(code)
    const converted = this.converter.convert(declarations, expanded.code)
    if (converted.diagnostics.length > 0) {
      const written = (d: Diagnostic) => (d.file ? d : { ...d, column: expanded.writtenColumn(d.line, d.column) })
      return { diagnostics: converted.diagnostics.map(toDiagnostic).map(written) }
    }
    const modules = (converted.sideOutputs ?? []).map(({ path, data }) => ({
      path: modulePath(this.cwd, path),
      ...this.withMaps(data),
    }))
    return {
      cell: {
        ...this.withMaps(converted.output ?? ''),
        writtenColumn: expanded.writtenColumn,
        declarations: converted.declOutput ?? '',
        resultName: converted.lastExpressionVar ?? null,
        imports: importedNames(code),
        modules,
      },
    }
  }

  complete(declarations: string, code: string, offset: number) {
    const completions = this.converter.complete(declarations, code, offset)
    return { completions, checker: this.hooks.checker }
  }

  inspect(declarations: string, code: string, offset: number) {
    return this.converter.inspect(declarations, code, offset)
  }

  localFile(id: string, folder: string): string | null {
    const ts = typescript()
    const found = ts.resolveModuleName(id, join(folder, 'cell.ts'), { ...this.hooks.options }, ts.sys).resolvedModule
    return found && !found.isExternalLibraryImport ? found.resolvedFileName : null
  }

  close(): void {
    this.converter.close()
  }

  private withMaps(code: string): CompiledCode {
    return { code, maps: this.hooks.maps.get(code) ?? [] }
  }
}

/** Modules that `code` imports by a statement, in order. */
function importedNames(code: string): string[] {
  const ts = typescript()
  const source = ts.createSourceFile('cell.ts', code, ts.ScriptTarget.ES2022)
  return source.statements.flatMap((statement) =>
    ts.isImportDeclaration(statement) && ts.isStringLiteral(statement.moduleSpecifier) ? [statement.moduleSpecifier.text] : [],
  )
}

/** Names of the variables that `code` declares at its top level, in order; `const` ones only if asked for. */
export function declaredNames(code: string, kind: 'const' | 'all' = 'all'): string[] {
  const ts = typescript()
  const names: string[] = []
  for (const statement of ts.createSourceFile('cell.ts', code, ts.ScriptTarget.ES2022).statements) {
    if (!ts.isVariableStatement(statement)) continue
    if (kind === 'const' && !(statement.declarationList.flags & ts.NodeFlags.Const)) continue
    for (const { name } of statement.declarationList.declarations) if (ts.isIdentifier(name)) names.push(name.text)
  }
  return names
}

function toDiagnostic({ start, end, messageText, code, fileName }: ConverterDiagnostic): Diagnostic {
  const length = Math.max(1, end.offset - start.offset)
  return { file: fileName ?? null, line: start.line + 1, column: start.character + 1, length, code, message: messageText }
}
