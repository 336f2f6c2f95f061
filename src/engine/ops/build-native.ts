// Builds the native CPU library at first use, with the machine's own compiler, into $ARBOR_HOME/native/<hash of the sources>/, and picks the
// variant for this CPU. Later uses find it there.

import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { BackendError, OptionError } from '../../errors'
import { arborHome } from '../arbor-home'
import { packageRoot } from '../package-root'
import type { NativeLibrary } from './native'
import { loadNative } from './native-library'

const ISAS = ['scalar', 'avx2', 'avx512', 'avx512bf16', 'amx'] as const
export type Isa = (typeof ISAS)[number]

const AVX512 = ['avx512f', 'avx512bw', 'avx512dq', 'avx512vl', 'avx2', 'fma']

/** What a CPU must report for a build to run on it. */
const CPU_FLAGS: Readonly<Record<Isa, readonly string[]>> = {
  scalar: [],
  avx2: ['avx2', 'fma'],
  avx512: AVX512,
  avx512bf16: [...AVX512, 'avx512_bf16'],
  amx: [...AVX512, 'avx512_bf16', 'amx_tile', 'amx_bf16'],
}

export interface BuildOptions {
  /** Progress, one line at a time. */
  readonly log?: (line: string) => void
}

/** What `arbor-nb doctor` shows. */
export interface NativeStatus {
  readonly found: boolean
  readonly path: string | null
  readonly isa: string | null
  /** Instruction set, matrix products and threads, as the library says. */
  readonly description: string
  readonly compiler: string | null
  /** What to do when something is missing; null when nothing is. */
  readonly missing: string | null
}

/** The library for this CPU, built when it isn't there yet. Throws BackendError that names what is missing and the command that installs it. */
export async function ensureNative({ log = () => {} }: BuildOptions = {}): Promise<NativeLibrary> {
  const target = buildTarget()
  if (!existsSync(target.folder)) {
    const release = await lock(target.folder, log)
    try {
      if (!existsSync(target.folder)) await build(target, log)
    } finally {
      release()
    }
  }
  return open(target)
}

/** Looks, builds nothing. */
export async function nativeStatus(): Promise<NativeStatus> {
  const target = buildTarget()
  const compiler = await version('c++')
  const missing = (await missingTools()).length > 0 ? installHint() : null
  const known = { isa: target.isa, compiler, missing }
  if (!existsSync(target.folder))
    return { ...known, found: false, path: null, description: 'not built yet: the first use builds it' }
  try {
    return { ...known, found: true, ...open(target), missing: null }
  } catch (error) {
    return { ...known, found: false, path: target.folder, description: (error as Error).message }
  }
}

interface Target {
  readonly isa: Isa
  readonly folder: string
  readonly path: string
}

function buildTarget(): Target {
  const isa = chooseIsa()
  const folder = join(arborHome(), 'native', `${sourceHash()}-${isa}`)
  return { isa, folder, path: join(folder, `libarbor_cpu_${isa}.${process.platform === 'darwin' ? 'dylib' : 'so'}`) }
}

const isSource = (name: string) => /\.(cpp|h)$/.test(name)

function sourceHash(): string {
  const kernels = join(packageRoot(), 'kernels')
  const files = [
    'arbor_ops.h',
    'CMakeLists.txt',
    ...readdirSync(join(kernels, 'cpu'))
      .filter(isSource)
      .map((name) => join('cpu', name)),
  ].sort()
  const hash = createHash('sha256').update(`${process.platform} ${process.arch}`)
  for (const file of files) hash.update(`\n${file}\n`).update(readFileSync(join(kernels, file)))
  return hash.digest('hex').slice(0, 16)
}

/** The best instruction set that the CPU reports, at most what ARBOR_MAX_ISA says. */
function chooseIsa(): Isa {
  const wish = process.env['ARBOR_MAX_ISA'] ?? ISAS.at(-1)!
  const most = ISAS.indexOf(wish as Isa)
  if (most < 0) throw new OptionError(`ARBOR_MAX_ISA is "${wish}"; it takes ${ISAS.join(', ')}.`)
  return possibleIsas()
    .filter((isa) => ISAS.indexOf(isa) <= most)
    .at(-1)!
}

/** Every instruction set that a build exists for and this CPU reports, the plainest first: values of ARBOR_MAX_ISA. */
export function possibleIsas(): readonly Isa[] {
  const flags = cpuFlags()
  return ISAS.filter((isa) => CPU_FLAGS[isa].every((flag) => flags.has(flag)))
}

/** Linux only: elsewhere the portable build is taken (on ARM it has NEON by itself). */
function cpuFlags(): ReadonlySet<string> {
  if (process.arch !== 'x64' || !existsSync('/proc/cpuinfo')) return new Set()
  return new Set(/^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1]?.trim().split(/\s+/))
}

function open({ path }: Target): NativeLibrary {
  return { path, description: String(loadNative(path).call('arbor_description')()) }
}

/** Compiles into a folder beside the final one and renames it, so nobody ever sees half a library. */
async function build({ folder, isa }: Target, log: (line: string) => void): Promise<void> {
  await ensureTools(log)
  const started = Date.now()
  log(`Building the native library for ${isa} (once, about half a minute) …`)
  const work = `${folder}.${process.pid}`
  const out = join(work, 'libraries')
  mkdirSync(out, { recursive: true })
  try {
    const source = join(packageRoot(), 'kernels')
    await run('cmake', ['-S', source, '-B', work, `-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=${out}`, '-DCMAKE_BUILD_TYPE=Release'])
    await run('cmake', ['--build', work, '--target', `arbor_cpu_${isa}`, '--parallel', String(availableParallelism())])
    writeFileSync(join(out, 'build.json'), JSON.stringify({ compiler: await version('c++'), builtAt: new Date().toISOString() }))
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

const installHint = () =>
  process.platform === 'darwin'
    ? 'brew install cmake && xcode-select --install'
    : existsSync('/etc/debian_version')
      ? 'sudo apt-get install -y cmake g++ make'
      : 'install cmake, make and a C++17 compiler (Fedora: sudo dnf install cmake make gcc-c++)'

async function missingTools(): Promise<string[]> {
  const tools = ['cmake', 'c++', 'make']
  const found = await Promise.all(tools.map(version))
  return tools.filter((_, i) => found[i] === null)
}

/** As root on Debian the tools are installed; elsewhere the error names the command. */
async function ensureTools(log: (line: string) => void): Promise<void> {
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
async function version(tool: string): Promise<string | null> {
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
