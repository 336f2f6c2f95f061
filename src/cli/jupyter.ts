// JupyterLab: the one that is here, or one made in a Python environment of our own; and our kernel in either.

import { spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { installKernel } from '../../kernels/jupyter/install'
import { arborHome } from '../engine/arbor-home'
import { ArborError } from '../errors'
import { packageInfo } from './package-info'

/** Our charts are written for JupyterLab 4. */
const LEAST_MAJOR = 4

/** How to start a JupyterLab. */
export interface Jupyter {
  /** 'jupyter' or a Python interpreter. */
  readonly program: string
  /** What makes it JupyterLab: ['lab'] or ['-m', 'jupyterlab']. */
  readonly lab: readonly string[]
  /** What makes it the command `jupyter`: [] or ['-m', 'jupyter']. */
  readonly jupyter: readonly string[]
  readonly version: string
}

/** Jupyter's own folders. */
interface JupyterPaths {
  /** Where kernels are looked for, the first one first. */
  readonly data: readonly string[]
  /** Where a running server leaves its address. */
  readonly runtime: readonly string[]
}

/** The JupyterLab of `jupyter` on PATH: null without one, or without one that works. `tooOld` is for those before 4. */
export function jupyterOnPath(): (Jupyter & { readonly tooOld: boolean }) | null {
  return known({ program: 'jupyter', lab: ['lab'], jupyter: [] }, ['lab', '--version'])
}

/** The JupyterLab of a Python interpreter. @throws ArborError when it has none, or one before 4 */
export function jupyterOfPython(python: string): Jupyter {
  // Importing JupyterLab for its version takes seconds.
  const tell = 'from importlib.metadata import version; print(version("jupyterlab"))'
  const found = known({ program: python, lab: ['-m', 'jupyterlab'], jupyter: ['-m', 'jupyter'] }, ['-c', tell])
  if (found && !found.tooOld) return found
  const what = found ? `JupyterLab ${found.version}, which is too old (${LEAST_MAJOR} is needed)` : 'no JupyterLab that works'
  throw new ArborError(`${python} has ${what}. Install it: ${python} -m pip install -U jupyterlab`)
}

function known(how: Omit<Jupyter, 'version'>, tellVersion: readonly string[]): (Jupyter & { tooOld: boolean }) | null {
  const { status, stdout } = spawnSync(how.program, tellVersion, { encoding: 'utf8' })
  const version = /^\d+\.\S+/m.exec(stdout ?? '')?.[0]
  if (status !== 0 || version === undefined) return null
  return { ...how, version, tooOld: Number.parseInt(version, 10) < LEAST_MAJOR }
}

/** An environment that nobody chose asks nobody whether they want its news, nor tells that it could be newer: its version is pinned. A person's own settings win. */
function askNothing(): void {
  const folder = join(ownVenv(), 'share', 'jupyter', 'lab', 'settings')
  mkdirSync(folder, { recursive: true })
  const quiet = { '@jupyterlab/apputils-extension:notification': { fetchNews: 'false', checkForUpdates: false } }
  writeFileSync(join(folder, 'overrides.json'), JSON.stringify(quiet))
}

/** Where the environment lies that `ownJupyter` makes. */
export function ownVenv(): string {
  return join(arborHome(), 'lab-venv')
}

interface PythonVenv {
  pythonVenv(options: {
    folder: string
    requirements: readonly { file: string }[]
    log: (line: string) => void
  }): { python: string } | { reason: string }
}

/** JupyterLab in an environment of our own, made when it isn't there. @throws ArborError, with the reason, when it can't be made */
export function ownJupyter(log: (line: string) => void): Jupyter {
  // Plain JavaScript that also runs before anything is compiled, so it stays where it was written.
  const folder = join(packageInfo().root, 'src', 'cli')
  const { pythonVenv } = require(join(folder, 'python-venv.mjs')) as PythonVenv
  const made = pythonVenv({ folder: ownVenv(), requirements: [{ file: join(folder, 'lab-requirements.txt') }], log })
  if ('python' in made) {
    askNothing()
    return jupyterOfPython(made.python)
  }
  throw new ArborError(
    `No JupyterLab was found, and none can be installed in ${ownVenv()}: ${made.reason}\nWithout it, notebooks run by: arbor-nb run NOTEBOOK.ipynb --html page.html`,
  )
}

export function jupyterPaths({ program, jupyter }: Jupyter): JupyterPaths {
  // JUPYTER_PATH comes first in the list and belongs to somebody else.
  const env = { ...process.env, JUPYTER_PATH: '' }
  const { status, stdout, stderr } = spawnSync(program, [...jupyter, '--paths', '--json'], { encoding: 'utf8', env })
  if (status === 0) return JSON.parse(stdout) as JupyterPaths
  throw new ArborError(`${program} does not tell its folders (${[...jupyter, '--paths', '--json'].join(' ')}): ${stderr}`)
}

/** What Jupyter starts. */
export function kernelMain(): string {
  return join(packageInfo().root, 'dist', 'kernels', 'jupyter', 'main.js')
}

/** Puts our kernel into the first of Jupyter's folders that can be written: its environment's, else the user's. Returns where it is. */
export function installInto({ data }: JupyterPaths): string {
  const refused: string[] = []
  for (const folder of data) {
    try {
      return installKernel(folder, kernelMain())
    } catch (error) {
      const { syscall, message } = error as NodeJS.ErrnoException
      if (syscall === undefined) throw error
      refused.push(message)
    }
  }
  throw new ArborError(`The kernel can't be installed: ${refused.join('; ')}. Take another JupyterLab by --python.`)
}
