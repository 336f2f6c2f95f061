// What of CUDA this machine has: GPUs and their driver, the toolkit's compiler, cuBLASLt. Looks only; builds and loads nothing.

import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'

/** What the driver says of one GPU. */
export interface Gpu {
  readonly name: string
  readonly driver: string
  /** '9.0' */
  readonly computeCapability: string
  readonly totalMib: number
  readonly freeMib: number
}

/** The GPUs that answer, or why none does. */
export interface GpuAnswer {
  readonly gpus: readonly Gpu[]
  /** For people, with what to do; null where a GPU answers. */
  readonly problem: string | null
}

/** A program that holds memory of a GPU. */
export interface GpuProcess {
  readonly pid: number
  readonly name: string
  readonly mib: number
}

/** CUDA 12's oldest driver: the library is written for toolkits from 12.4 on. */
export const LEAST_DRIVER = '525.60'
export const LEAST_NVCC = '12.4'
export const LEAST_CAPABILITY = '8.0'
/** Of a toolkit's major version. */
const DRIVERS: Readonly<Record<string, string>> = { '12': LEAST_DRIVER, '13': '580.65' }

function ask(command: string, args: readonly string[]): { out: string; error: string | null } {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8', timeout: 20_000 })
  if (error) return { out: '', error: error.message }
  const said = `${stdout}${stderr}`.trim().split('\n')[0] ?? ''
  return status === 0 ? { out: stdout, error: null } : { out: '', error: said === '' ? `exit code ${status}` : said }
}

function rows(text: string): string[][] {
  return text
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => line.split(',').map((part) => part.trim()))
}

export function askGpus(): GpuAnswer {
  const fields = 'name,driver_version,compute_cap,memory.total,memory.free'
  const { out, error } = ask('nvidia-smi', [`--query-gpu=${fields}`, '--format=csv,noheader,nounits'])
  if (error !== null) return { gpus: [], problem: smiProblem(error) }
  const gpus = rows(out).map(([name = '', driver = '', computeCapability = '', total, free]) => ({
    name,
    driver,
    computeCapability,
    totalMib: Number(total),
    freeMib: Number(free),
  }))
  return { gpus, problem: gpus.length === 0 ? 'nvidia-smi lists no GPU' : null }
}

function smiProblem(error: string): string {
  if (/ENOENT/.test(error)) return 'there is no NVIDIA driver (nvidia-smi was not found)'
  if (/not a valid field/.test(error)) return `the NVIDIA driver is too old: ${LEAST_DRIVER} or newer is needed`
  if (/mismatch/i.test(error)) return `the NVIDIA driver was updated while it ran (${error}): restart the machine`
  return `nvidia-smi says: ${error}`
}

/** Who holds memory of the GPUs, as far as the driver tells this user. */
export function gpuProcesses(): GpuProcess[] {
  const { out } = ask('nvidia-smi', ['--query-compute-apps=pid,process_name,used_memory', '--format=csv,noheader,nounits'])
  return rows(out).map(([pid, name = '', mib]) => ({ pid: Number(pid), name, mib: Number(mib) }))
}

/** The toolkit's compiler: on PATH, or where the toolkit is installed by default. */
export function findNvcc(): { readonly path: string; readonly release: string } | null {
  const places = [process.env['CUDA_HOME'], process.env['CUDA_PATH'], '/usr/local/cuda', '/opt/cuda']
  for (const path of ['nvcc', ...places.flatMap((place) => (place ? [join(place, 'bin', 'nvcc')] : []))]) {
    const { out, error } = ask(path, ['--version'])
    if (error === null) return { path, release: /release (\d+\.\d+)/.exec(out)?.[1] ?? 'unknown' }
  }
  return null
}

const CUBLASLT = 'libcublasLt.so'

/** The file that the library would load, or null; Python's package of cuBLAS serves where no toolkit's is installed. */
export function findCublasLt(): string | null {
  const named = process.env['ARBOR_CUBLASLT']
  if (named !== undefined) return existsSync(named) ? named : null
  return fromPython(CUBLASLT, ['cu13', 'cublas', 'cu12']) ?? fromLoader('libcublasLt') ?? toolkitCublasLt()
}

/** The same for NCCL, which several GPUs sum by. */
export function findNccl(): string | null {
  const named = process.env['ARBOR_NCCL']
  if (named !== undefined) return existsSync(named) ? named : null
  return fromPython('libnccl.so', ['nccl']) ?? fromLoader('libnccl')
}

/** A library of Python's packages from NVIDIA, which come in folders of these names. */
function fromPython(file: string, folders: readonly string[]): string | null {
  const script =
    "import importlib.util as u; [print(p) for n in ('nvidia',) for p in (u.find_spec(n).submodule_search_locations or [])]"
  const roots = ask('python3', ['-c', script]).out.split('\n').filter(Boolean)
  const places = roots.flatMap((root) => folders.map((name) => join(root, name, 'lib')))
  return places.map((place) => libraryIn(place, file)).find((path) => path !== null) ?? null
}

function fromLoader(name: string): string | null {
  return new RegExp(`${name}\\.so\\S* .*=> (\\S+)`).exec(ask('ldconfig', ['-p']).out)?.[1] ?? null
}

function toolkitCublasLt(): string | null {
  if (!existsSync('/usr/local')) return null
  const folders = readdirSync('/usr/local').filter((name) => name.startsWith('cuda'))
  return folders.map((name) => libraryIn(join('/usr/local', name, 'lib64'), CUBLASLT)).find((path) => path !== null) ?? null
}

function libraryIn(folder: string, file: string): string | null {
  const library = existsSync(folder) ? readdirSync(folder).find((name) => name.startsWith(file)) : undefined
  return library === undefined ? null : join(folder, library)
}

/** Why a toolkit's programs could not run on this driver, or null. */
export function driverProblem(driver: string, nvccRelease: string = LEAST_NVCC): string | null {
  const least = DRIVERS[nvccRelease.split('.')[0]!] ?? LEAST_DRIVER
  if (!isOlder(driver, least)) return null
  return `The NVIDIA driver ${driver} is too old for CUDA ${nvccRelease}: ${least} or newer is needed. Update the driver, or use the device "cpu".`
}

/** '12.10' is newer than '12.4'; what is no version is not older. */
export function isOlder(version: string, than: string): boolean {
  const [a, b] = [version, than].map((text) => text.split('.').map(Number)) as [number[], number[]]
  if ([...a, ...b].some(Number.isNaN)) return false
  for (let i = 0; i < b.length; i++) if ((a[i] ?? 0) !== b[i]) return (a[i] ?? 0) < b[i]!
  return false
}
