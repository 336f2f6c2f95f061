// arbor-nb lab: JupyterLab with our kernel, and the workbook open in it.

import { type ChildProcess, spawn } from 'node:child_process'
import { accessSync, constants, copyFileSync, existsSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve, sep } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { ArborError } from '../errors'
import { installInto, type Jupyter, jupyterOfPython, jupyterOnPath, jupyterPaths, ownJupyter, ownVenv } from './jupyter'
import { numberOption, parseOptions } from './options'
import { isInstalled, type PackageInfo, packageInfo } from './package-info'

export const help = `Usage: arbor-nb lab [NOTEBOOK.ipynb | FOLDER] [options] [-- JUPYTERLAB'S OPTIONS]

Opens a notebook, or else the workbook, in JupyterLab with the TypeScript kernel. Takes the JupyterLab whose \`jupyter\` is on
PATH; without one it makes a Python environment with JupyterLab of its own (needs python3 and, once, the network).

  --python PROGRAM  the Python whose JupyterLab to take
  --port N          the port                                             default: 8888, or the next free one
  --no-browser      opens no browser; the address is printed anyway
  -h, --help        this text

Ctrl-C ends JupyterLab and its kernels.`

const options = { python: { type: 'string' }, port: { type: 'string' }, 'no-browser': { type: 'boolean' } } as const
const WORKBOOK = '01-grpo-workbook.ipynb'

export async function run(argv: readonly string[]): Promise<number> {
  const end = argv.includes('--') ? argv.indexOf('--') : argv.length
  const { values, positionals } = parseOptions(argv.slice(0, end), options, ['[NOTEBOOK | FOLDER]'])
  const port = numberOption(values.port, '--port', { min: 1, max: 65535, integer: true })
  const opened = positionals[0] === undefined ? workbook(packageInfo(), process.cwd()) : existing(positionals[0])
  const jupyter = values.python === undefined ? anyJupyter() : jupyterOfPython(values.python)
  const paths = jupyterPaths(jupyter)
  say(`JupyterLab ${jupyter.version} (${jupyter.program}), kernel in ${installInto(paths)}`)
  const own = [...(port === undefined ? [] : [`--ServerApp.port=${port}`]), ...(values['no-browser'] ? ['--no-browser'] : [])]
  const args = [...jupyter.lab, opened, ...own, ...labOptions(argv.slice(end + 1))]
  // A process group of its own: the terminal's Ctrl-C reaches this process alone, which ends JupyterLab without its question.
  const child = spawn(jupyter.program, args, { stdio: ['ignore', 'inherit', 'inherit'], detached: true })
  const ended = whenEnded(child)
  void tellAddress(child, join(paths.runtime[0] ?? '', `jpserver-${child.pid}.json`), opened)
  return ended
}

/** What JupyterLab gets besides the person's own options, which win. */
function labOptions(given: readonly string[]): string[] {
  const quiet = given.some((option) => /^--(debug|log[-_]level|\w+\.log_level)/.test(option)) ? [] : ['--log-level=WARN']
  // JupyterLab refuses root without it; whoever starts us as root (in a container, mostly) has decided that already.
  const root = process.getuid?.() === 0 && !given.includes('--allow-root') ? ['--allow-root'] : []
  return [...quiet, ...root, ...given]
}

function anyJupyter(): Jupyter {
  const found = jupyterOnPath()
  if (found && !found.tooOld) return found
  if (!existsSync(ownVenv()))
    say(`${found ? `JupyterLab ${found.version} is too old` : 'No JupyterLab here'}: making one in ${ownVenv()} (once)`)
  return ownJupyter(say)
}

function existing(path: string): string {
  if (existsSync(path)) return resolve(path)
  throw new ArborError(`${path}: no such notebook or folder. Without a name the workbook is opened.`)
}

/**
 * The workbook: the one of a clone, or a copy in `cwd`, since what npm installed is not for writing in.
 * A copy that is there already is the person's own and stays as it is.
 */
export function workbook(info: Pick<PackageInfo, 'root'>, cwd: string): string {
  const original = join(info.root, 'notebooks', WORKBOOK)
  if (!isInstalled(info) && writable(original) && writable(dirname(original))) return original
  const copy = join(cwd, WORKBOOK)
  if (existsSync(copy)) return copy
  try {
    copyFileSync(original, copy, constants.COPYFILE_EXCL)
  } catch (error) {
    throw new ArborError(`The workbook can't be copied to this folder: ${(error as Error).message}`, { cause: error })
  }
  say(`the workbook is copied to ${copy}`)
  return copy
}

function writable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK)
    return true
  } catch {
    return false
  }
}

/** Resolves to the exit code. A signal asks JupyterLab to end, with its kernels; a second one does not wait for that. */
function whenEnded(child: ChildProcess): Promise<number> {
  let asked = false
  const end = () => {
    child.kill(asked ? 'SIGKILL' : 'SIGTERM')
    asked = true
  }
  process.on('SIGINT', end).on('SIGTERM', end).on('SIGHUP', end)
  return new Promise((resolve, reject) => {
    child.once('error', (error) => reject(new ArborError(`JupyterLab could not be started: ${error.message}`)))
    child.once('exit', (code) => {
      process.off('SIGINT', end).off('SIGTERM', end).off('SIGHUP', end)
      resolve(asked ? 0 : (code ?? 1))
    })
  })
}

/** What a Jupyter server writes about itself. */
interface ServerInfo {
  readonly url: string
  readonly token: string
  readonly root_dir: string
}

/** Prints the address of what was opened, once the server answers there. */
async function tellAddress(child: ChildProcess, infoFile: string, opened: string): Promise<void> {
  const running = () => child.exitCode === null && child.signalCode === null
  for (; running(); await sleep(200)) {
    const info = serverInfo(infoFile)
    if (info === null || !(await answers(info.url))) continue
    const path = relative(info.root_dir, opened).split(sep).map(encodeURIComponent).join('/')
    const token = info.token === '' ? '' : `?token=${encodeURIComponent(info.token)}`
    process.stdout.write(
      `\n  ${info.url}lab${path === '' ? '' : `/tree/${path}`}${token}\n\nCtrl-C ends JupyterLab and its kernels.\n`,
    )
    return
  }
}

/** Null until the file is written. */
function serverInfo(file: string): ServerInfo | null {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as ServerInfo
  } catch {
    return null
  }
}

/** Any answer will do: what it says about a base URL or a login is the person's and Jupyter's business. */
async function answers(url: string): Promise<boolean> {
  return fetch(`${url}api`).then(
    () => true,
    () => false,
  )
}

function say(line: string): void {
  process.stderr.write(`${line}\n`)
}
