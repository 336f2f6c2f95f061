// arbor-nb kernel install | uninstall | list: tells Jupyter where our kernel is.

import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import {
  DISPLAY_NAME,
  installedKernels,
  installKernel,
  prefixFolder,
  searchFolders,
  uninstallKernel,
  userFolder,
} from '../../kernels/jupyter/install'
import { ArborError, OptionError } from '../errors'
import { kernelMain, ownVenv } from './jupyter'
import { choiceOption, parseOptions } from './options'

export const help = `Usage: arbor-nb kernel install|uninstall [--user | --sys-prefix | --prefix DIR]
       arbor-nb kernel list

Makes the TypeScript kernel known to Jupyter, shown there as "${DISPLAY_NAME}".

  --user         for you, in every Jupyter (default)
  --sys-prefix   in the Python environment that python3 belongs to
  --prefix DIR   in the environment at DIR
  -h, --help     this text`

const options = {
  user: { type: 'boolean' },
  'sys-prefix': { type: 'boolean' },
  prefix: { type: 'string' },
} as const

export async function run(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parseOptions(argv, options, ['install|uninstall|list'])
  const action = choiceOption(positionals[0]!, 'kernel', ['install', 'uninstall', 'list'])
  const chosen = Object.entries(values).filter(([, value]) => value !== undefined && value !== false)
  if (chosen.length > 1) throw new OptionError(`Choose one of ${chosen.map(([name]) => `--${name}`).join(' and ')}.`)
  if (action === 'list') return list()
  const folder =
    chosen.length === 0 || values.user ? userFolder() : prefixFolder(values.prefix ? resolve(values.prefix) : sysPrefix())
  if (action === 'install') {
    const target = installKernel(folder, kernelMain())
    process.stdout.write(`${DISPLAY_NAME} is installed: ${target}\n`)
    return 0
  }
  const there = uninstallKernel(folder)
  process.stdout.write(there ? `Removed from ${folder}\n` : `There is none in ${folder}\n`)
  return there ? 0 : 1
}

function list(): number {
  const found = installedKernels([...new Set([...searchFolders(), ...pythonFolder(), prefixFolder(ownVenv())])])
  for (const { folder, main, missing } of found)
    process.stdout.write(`${folder}\n  starts ${main}\n${missing === null ? '' : `  ${missing} is gone: install it again\n`}`)
  if (found.length === 0) process.stdout.write('No kernel of arbor-nb is installed. Install it by: arbor-nb kernel install\n')
  return 0
}

function pythonFolder(): string[] {
  const prefix = pythonPrefix()
  return prefix === null ? [] : [prefixFolder(prefix)].filter((folder) => existsSync(folder))
}

function sysPrefix(): string {
  const prefix = pythonPrefix()
  if (prefix !== null) return prefix
  throw new ArborError('--sys-prefix: python3 was not found. Install Python, or name the environment by --prefix DIR.')
}

/** The environment that python3 belongs to, or null without one. */
function pythonPrefix(): string | null {
  const { status, stdout } = spawnSync('python3', ['-c', 'import sys; print(sys.prefix)'], { encoding: 'utf8' })
  return status === 0 ? stdout.trim() : null
}
