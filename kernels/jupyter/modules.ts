// `require` for cells: local TypeScript files as the converter compiled them, packages from the notebook's folder upward, arbor-nb always.
// A module of the new kind that waits at its top level can't be required; it is imported ahead of the cell and kept.

import { createRequire } from 'node:module'
import { dirname, extname, join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { types } from 'node:util'
import vm from 'node:vm'
import { resolveFrom } from './compiler-options'

/** What code of cells and local modules calls `require`. */
export interface CellRequire {
  (id: string): unknown
  /** What `import(id)` becomes. */
  import(id: string): Promise<unknown>
  /** What `import.meta` becomes. */
  readonly meta: { readonly url: string; readonly filename: string; readonly dirname: string; resolve(id: string): string }
  resolve(id: string): string
  readonly cache: NodeJS.Dict<NodeModule>
}

type Wrapper = (exports: object, require: CellRequire, module: { exports: object }, file: string, folder: string) => void

/** Where a cell's name leads that Node does not find: the compiler's idea of it (`paths` of a tsconfig). Null: nowhere. */
export type PathLookup = (id: string, folder: string) => string | null

export class CellModules {
  /** What a cell's `import` becomes. */
  readonly require: CellRequire
  private readonly code = new Map<string, string>()
  private readonly loaded = new Map<string, { exports: object }>()
  private readonly importers = new Map<string, Set<string>>()

  constructor(
    folder: string,
    private readonly ownPackage: string,
    private readonly lookUp: PathLookup = () => null,
  ) {
    this.require = this.requireIn(folder)
  }

  /** A local module, compiled; `path` ends in .js. Loaded anew by the next import. */
  add(path: string, code: string): void {
    this.code.set(path, code)
    this.forget(path)
  }

  /** Also who imported it, or they would go on with the old one. */
  private forget(path: string): void {
    if (!this.loaded.delete(path)) return
    for (const importer of this.importers.get(path) ?? []) this.forget(importer)
  }

  /** Imports those of `ids` that can't be required. Faults are left to the cell, which meets them at its own line. */
  async prepare(ids: readonly string[]): Promise<void> {
    for (const id of ids) await this.require.import(id).catch(() => undefined)
  }

  private requireIn(folder: string, file = join(folder, 'cell.js')): CellRequire {
    const plain = createRequire(file)
    const find = (id: string): string => {
      if (id === 'arbor-nb' && resolveFrom(file, 'arbor-nb/package.json') === null) return this.ownPackage
      return id
    }
    // Modules that can't be required, by the name that was asked for.
    const waited = new Map<string, unknown>()
    const require = (id: string): unknown => {
      const local = this.localPath(id, folder)
      if (local) return this.load(local, file)
      return waited.has(id) ? waited.get(id) : plain(find(id))
    }
    const load = async (id: string): Promise<unknown> => {
      try {
        return namespaceOf(require(id))
      } catch (error) {
        if (!IMPORT_ONLY.has(String((error as NodeJS.ErrnoException).code))) throw error
        const module = await importFrom(file)(id)
        // Marked as compiled code expects it, or its default would be the whole.
        waited.set(id, Object.defineProperty({ ...module }, '__esModule', { value: true }))
        return module
      }
    }
    const meta = { url: pathToFileURL(file).href, filename: file, dirname: folder, resolve: plain.resolve }
    return Object.assign(require, { import: load, meta, resolve: plain.resolve, cache: plain.cache })
  }

  private localPath(id: string, folder: string): string | null {
    if (this.code.size === 0) return null
    const path = /^[./]/.test(id) ? resolve(folder, id) : this.lookUp(id, folder)
    if (path === null) return null
    const names = [path, `${path}.js`, join(path, 'index.js'), path.replace(/\.tsx?$/, '.js')]
    return names.find((name) => extname(name) === '.js' && this.code.has(name)) ?? null
  }

  private load(path: string, importer: string): unknown {
    this.importers.set(path, (this.importers.get(path) ?? new Set()).add(importer))
    const known = this.loaded.get(path)
    if (known) return known.exports
    const module = { exports: {} }
    this.loaded.set(path, module) // before it runs: modules may import each other in a circle
    const parameters = ['exports', 'require', 'module', '__filename', '__dirname']
    const run = vm.compileFunction(this.code.get(path) ?? '', parameters, { filename: path }) as Wrapper
    try {
      run(module.exports, this.requireIn(dirname(path), path), module, path, dirname(path))
    } catch (error) {
      this.loaded.delete(path)
      throw error
    }
    return module.exports
  }
}

/** What require says to a module that waits at its top level, and to a package that only lets itself be imported. */
const IMPORT_ONLY = new Set(['ERR_REQUIRE_ASYNC_MODULE', 'ERR_PACKAGE_PATH_NOT_EXPORTED'])

/** Node's own import() as seen from `file`. */
function importFrom(file: string): (id: string) => Promise<object> {
  const importModuleDynamically = vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER
  return vm.runInThisContext('(id) => import(id)', { filename: file, importModuleDynamically }) as (id: string) => Promise<object>
}

/** A CommonJS module as `import()` shows it: its names, and the whole as default. */
function namespaceOf(module: unknown): unknown {
  const known = types.isModuleNamespaceObject(module) || (module as { __esModule?: boolean } | null)?.__esModule === true
  if (known) return module
  return typeof module === 'object' || typeof module === 'function' ? { ...module, default: module } : { default: module }
}
