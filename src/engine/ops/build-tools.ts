// Compiling a native library with cmake: once for the same sources, by one process at a time, never half.

import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { BackendError } from '../../errors'
import { packageRoot } from '../package-root'

export interface BuildOptions {
  /** Progress, one line at a time. */
  readonly log?: (line: string) => void
}

export interface BuildRequest {
  /** Where the library will lie; nothing is built when it exists. */
  readonly folder: string
  /** The folder of the CMakeLists.txt; kernels/ unless told otherwise. */
  readonly source?: string
  /** cmake's. */
  readonly target: string
  /** For people. */
  readonly what: string
  /** Made when something has to be built; may throw BackendError. */
  readonly definitions?: () => readonly string[]
  /** Sees to the tools that are needed, or throws BackendError. */
  readonly prepare: () => Promise<void>
  readonly log: (line: string) => void
}

const isSource = (name: string) => /\.(cpp|h|cu|cuh)$/.test(name)

/** Of all that a library is made from, for this platform. */
export function sourceHash(folder: 'cpu' | 'cuda'): string {
  const kernels = join(packageRoot(), 'kernels')
  const own = readdirSync(join(kernels, folder)).filter(isSource)
  const files = ['arbor_ops.h', 'CMakeLists.txt', ...own.map((name) => join(folder, name))].sort()
  const hash = createHash('sha256').update(`${process.platform} ${process.arch}`)
  for (const file of files) hash.update(`\n${file}\n`).update(readFileSync(join(kernels, file)))
  return hash.digest('hex').slice(0, 16)
}

/** Builds the target into its folder, unless it is there. */
export async function buildTarget(request: BuildRequest): Promise<void> {
  if (existsSync(request.folder)) return
  const release = await lock(request.folder, request.log)
  try {
    if (!existsSync(request.folder)) await build(request)
  } finally {
    release()
  }
}

/** Compiles into a folder beside the final one and renames it, so nobody ever sees half a library. */
async function build({ folder, source, target, what, definitions = () => [], prepare, log }: BuildRequest): Promise<void> {
  const own = definitions()
  await prepare()
  const started = Date.now()
  log(`Building ${what} …`)
  const work = `${folder}.${process.pid}`
  const out = join(work, 'libraries')
  mkdirSync(out, { recursive: true })
  try {
    const settings = [`-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=${out}`, '-DCMAKE_BUILD_TYPE=Release', ...own]
    await run('cmake', ['-S', source ?? join(packageRoot(), 'kernels'), '-B', work, ...settings])
    await run('cmake', ['--build', work, '--target', target, '--parallel', String(availableParallelism())])
    writeFileSync(
      join(out, 'build.json'),
      JSON.stringify({ compiler: await toolVersion('c++'), definitions: own, builtAt: new Date().toISOString() }),
    )
    renameSync(out, folder)
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
  log(`Native library built in ${Math.round((Date.now() - started) / 1000)} s: ${folder}`)
}

/** One builder at a time: the lock is a folder that holds the owner's process id; an owner that is gone loses it. */
async function lock(folder: string, log: (line: string) => void): Promise<() => void> {
  const path = `${folder}.lock`
  mkdirSync(join(folder, '..'), { recursive: true })
  for (let told = false; ; ) {
    try {
      mkdirSync(path)
      writeFileSync(join(path, 'pid'), String(process.pid))
      return () => rmSync(path, { recursive: true, force: true })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    }
    if (!told) log('Another process builds the native library; waiting for it.')
    told = true
    await new Promise((resolve) => setTimeout(resolve, 200))
    if (ownerIsGone(join(path, 'pid'))) rmSync(path, { recursive: true, force: true })
  }
}

function ownerIsGone(pidFile: string): boolean {
  try {
    process.kill(Number(readFileSync(pidFile, 'utf8') || process.pid), 0)
    return false
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH' // no file yet: the owner is about to write it
  }
}

export const installHint = () =>
  process.platform === 'darwin'
    ? 'brew install cmake && xcode-select --install'
    : existsSync('/etc/debian_version')
      ? 'sudo apt-get install -y cmake g++ make'
      : 'install cmake, make and a C++17 compiler (Fedora: sudo dnf install cmake make gcc-c++)'

export async function missingTools(): Promise<string[]> {
  const tools = ['cmake', 'c++', 'make']
  const found = await Promise.all(tools.map(toolVersion))
  return tools.filter((_, i) => found[i] === null)
}

/** As root on Debian the tools are installed; elsewhere the error names the command. */
export async function ensureTools(log: (line: string) => void): Promise<void> {
  const missing = await missingTools()
  if (missing.length === 0) return
  if (process.getuid?.() === 0 && existsSync('/etc/debian_version')) {
    log(`Installing cmake and g++ with apt-get (missing: ${missing.join(', ')}) …`)
    await run('apt-get', ['update', '-qq'])
    await run('apt-get', ['install', '-y', '-qq', 'cmake', 'g++', 'make'])
    return
  }
  throw new BackendError(`The native library can't be built without ${missing.join(', ')}. Run: ${installHint()}`, {
    op: 'build',
  })
}

/** First line of `tool --version`, null when it isn't there. */
export async function toolVersion(tool: string): Promise<string | null> {
  try {
    return (await run(tool, ['--version'])).split('\n')[0]!
  } catch {
    return null // not installed is an answer here
  }
}

/** Standard output; rejects with BackendError that carries the last lines of both outputs. */
function run(command: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    })
    let output = ''
    let all = ''
    child.stdout.on('data', (chunk) => (output += chunk) && (all += chunk))
    child.stderr.on('data', (chunk) => (all += chunk))
    const fail = (why: string, cause?: unknown) =>
      reject(
        new BackendError(`${command} ${args.join(' ')}: ${why}\n${all.split('\n').slice(-20).join('\n')}`, {
          op: 'build',
          cause,
        }),
      )
    child.on('error', (cause) => fail(cause.message, cause))
    child.on('close', (code) => (code === 0 ? resolve(output) : fail(`exit code ${code}`)))
  })
}
