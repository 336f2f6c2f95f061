// `require` for cells: local TypeScript files as the converter compiled them, packages from the notebook's folder upward, arbor-nb always.

import { createRequire } from 'node:module'
import { dirname, extname, join, resolve } from 'node:path'
import vm from 'node:vm'
import { resolveFrom } from './compiler'

type Require = (id: string) => unknown
type Wrapper = (exports: object, require: Require, module: { exports: object }, file: string, folder: string) => void

export class CellModules {
  /** What a cell's `import` becomes. */
  readonly require: Require
  private readonly code = new Map<string, string>()
  private readonly loaded = new Map<string, { exports: object }>()

  constructor(
    folder: string,
    private readonly ownPackage: string,
  ) {
    this.require = this.requireIn(folder)
  }

  /** A local module, compiled; `path` ends in .js. Loaded anew by the next import. */
  add(path: string, code: string): void {
    this.code.set(path, code)
    this.loaded.delete(path)
  }

  private requireIn(folder: string): Require {
    const file = join(folder, 'cell.js')
    const plain = createRequire(file)
    const require = (id: string) => {
      const local = /^[./]/.test(id) ? this.localPath(resolve(folder, id)) : null
      if (local) return this.load(local)
      if (id === 'arbor-nb' && resolveFrom(file, 'arbor-nb/package.json') === null) return plain(this.ownPackage)
      return plain(id)
    }
    return Object.assign(require, { resolve: plain.resolve, cache: plain.cache })
  }

  private localPath(path: string): string | null {
    const names = [path, `${path}.js`, join(path, 'index.js'), path.replace(/\.tsx?$/, '.js')]
    return names.find((name) => extname(name) === '.js' && this.code.has(name)) ?? null
  }

  private load(path: string): unknown {
    const known = this.loaded.get(path)
    if (known) return known.exports
    const module = { exports: {} }
    this.loaded.set(path, module) // before it runs: modules may import each other in a circle
    const parameters = ['exports', 'require', 'module', '__filename', '__dirname']
    const run = vm.compileFunction(this.code.get(path) ?? '', parameters, { filename: path }) as Wrapper
    try {
      run(module.exports, this.requireIn(dirname(path)), module, path, dirname(path))
    } catch (error) {
      this.loaded.delete(path)
      throw error
    }
    return module.exports
  }
}
