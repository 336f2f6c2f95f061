// The kernelspec: the folder by which Jupyter finds the kernel. It also holds what every Jupyter server then serves to pages: the logo,
// plotly.js and the script that draws our charts. Beside it a labextension, for JupyterLab and Notebook 7.

import { copyFileSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { delimiter, join } from 'node:path'
import { ownPackageFolder } from './own-package'

export const KERNEL_NAME = 'arbor-nb'
export const DISPLAY_NAME = 'TypeScript (arbor-nb)'
const EXTENSION_NAME = 'arbor-nb-charts'

/** The folder for `prefix`: a Python environment, or any folder with share/jupyter. */
export function prefixFolder(prefix: string): string {
  return join(prefix, 'share', 'jupyter')
}

/** The data folder that Jupyter reads for this user alone. */
export function userFolder(): string {
  const { JUPYTER_DATA_DIR, XDG_DATA_HOME, APPDATA } = process.env
  if (JUPYTER_DATA_DIR) return JUPYTER_DATA_DIR
  if (process.platform === 'darwin') return join(homedir(), 'Library', 'Jupyter')
  if (process.platform === 'win32') return join(APPDATA ?? homedir(), 'jupyter')
  return join(XDG_DATA_HOME ?? join(homedir(), '.local', 'share'), 'jupyter')
}

/** Every folder in which Jupyter looks for kernels, the first one first. */
export function searchFolders(): string[] {
  const environments = [process.env.VIRTUAL_ENV, process.env.CONDA_PREFIX].flatMap((prefix) =>
    prefix ? [prefixFolder(prefix)] : [],
  )
  const given = (process.env.JUPYTER_PATH ?? '').split(delimiter).filter((folder) => folder !== '')
  return [...new Set([...given, ...environments, userFolder(), '/usr/local/share/jupyter', '/usr/share/jupyter'])]
}

/**
 * Writes the kernelspec and the labextension under `folder` (a `share/jupyter`), in place of older ones; returns where the kernelspec is.
 * @param main the compiled main.js
 */
export function installKernel(folder: string, main: string): string {
  if (!existsSync(main)) throw new Error(`${main} is not there: build the package first (npm run build)`)
  const target = specFolder(folder)
  rmSync(target, { recursive: true, force: true })
  mkdirSync(target, { recursive: true })
  const spec = {
    // The check ends the process when an interrupt stops a loop; see async-checks.ts.
    argv: [process.execPath, '--no-force-async-hooks-checks', main, '{connection_file}'],
    display_name: DISPLAY_NAME,
    language: 'typescript',
    interrupt_mode: 'message',
    kernel_protocol_version: '5.4',
    metadata: { debugger: false },
  }
  writeFileSync(join(target, 'kernel.json'), `${JSON.stringify(spec, null, 2)}\n`)
  copyFileSync(require.resolve('plotly.js/dist/plotly-basic.min.js'), join(target, 'plotly-basic.min.js'))
  const own = join(ownPackageFolder(), 'kernels', 'jupyter')
  copyFileSync(join(own, 'logo-svg.svg'), join(target, 'logo-svg.svg'))
  copyFileSync(join(own, 'charts', 'charts.js'), join(target, 'charts.js'))
  rmSync(extensionFolder(folder), { recursive: true, force: true })
  cpSync(join(own, 'charts', 'labextension'), extensionFolder(folder), { recursive: true })
  return target
}

/** Removes kernelspec and labextension under `folder`; false when there is no kernelspec. */
export function uninstallKernel(folder: string): boolean {
  rmSync(extensionFolder(folder), { recursive: true, force: true })
  const target = specFolder(folder)
  if (!existsSync(target)) return false
  rmSync(target, { recursive: true, force: true })
  return true
}

export interface FoundKernel {
  readonly folder: string
  /** The main.js that it starts. */
  readonly main: string
  /** What it would start and is gone: Node, after another version took its place, or main.js, with its package. Else null. */
  readonly missing: string | null
}

/** Our kernels in the folders given. */
export function installedKernels(folders: readonly string[] = searchFolders()): FoundKernel[] {
  return folders.flatMap((folder) => {
    const kernels = join(folder, 'kernels')
    if (!existsSync(kernels)) return []
    return readdirSync(kernels).flatMap((name) => {
      const file = join(kernels, name, 'kernel.json')
      if (name !== KERNEL_NAME || !existsSync(file)) return []
      const { argv } = JSON.parse(readFileSync(file, 'utf8')) as { argv: string[] }
      const [node = '', main = ''] = [argv[0], argv.at(-2)]
      const missing = [node, main].find((path) => !existsSync(path)) ?? null
      return [{ folder: join(kernels, name), main, missing }]
    })
  })
}

function specFolder(folder: string): string {
  return join(folder, 'kernels', KERNEL_NAME)
}

function extensionFolder(folder: string): string {
  return join(folder, 'labextensions', EXTENSION_NAME)
}
