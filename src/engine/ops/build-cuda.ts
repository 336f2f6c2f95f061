// Builds the native CUDA library at first use, with the toolkit's nvcc, into $ARBOR_HOME/native/<hash of the sources>-cuda…/.

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { BackendError } from '../../errors'
import { arborHome } from '../arbor-home'
import { type BuildOptions, buildTarget, ensureTools, sourceHash } from './build-tools'
import {
  askGpus,
  driverProblem,
  findCublasLt,
  findNccl,
  findNvcc,
  type Gpu,
  isOlder,
  LEAST_CAPABILITY,
  LEAST_NVCC,
} from './cuda-machine'
import type { NativeLibrary } from './native'
import { loadNative } from './native-library'

/** The GPUs that answer; none without a driver. */
export function gpus(): readonly Gpu[] {
  return askGpus().gpus
}

/** Architectures that a build is for where no GPU says otherwise: Ampere and Hopper in machine code, newer ones through PTX. */
const ARCHITECTURES = ['80', '90']

/**
 * The library for this machine's GPUs, built when it isn't there yet; `ARBOR_CUDA_LIBRARY` names one that was built elsewhere. Throws BackendError
 * that says what is missing: a GPU that answers and is new enough, its driver, or the toolkit's nvcc.
 */
export async function ensureCuda({ log = () => {} }: BuildOptions = {}): Promise<NativeLibrary> {
  const { gpus: found, problem } = askGpus()
  if (problem !== null)
    throw new BackendError(`No NVIDIA GPU answers: ${problem}. Use the device "cpu" or "auto".`, { op: 'open' })
  const unfit = gpuProblem(found)
  if (unfit !== null) throw new BackendError(unfit, { op: 'open' })
  const target = cudaTarget(found)
  const description = found[0]!.name
  tellLibraries(found.length)
  if (target.named) {
    if (existsSync(target.path)) return { path: target.path, description }
    throw new BackendError(
      `ARBOR_CUDA_LIBRARY is ${target.path}, and there is no such file. Unset it and the library is built here.`,
      {
        op: 'open',
      },
    )
  }
  await buildTarget({
    folder: target.folder,
    target: 'arbor_cuda',
    what: `the CUDA library for ${description} (once, about two minutes)`,
    definitions: definitions(found, target.architectures ?? []),
    prepare: () => ensureTools(log),
    log,
  })
  return { path: target.path, description }
}

/** cmake's. Throws where there is no fit compiler, which only a library that is not built yet needs. */
function definitions(found: readonly Gpu[], architectures: readonly string[]): () => readonly string[] {
  return () => {
    const nvcc = findNvcc()
    const problem = compilerProblem(nvcc, found)
    if (nvcc === null || problem !== null) throw new BackendError(`The CUDA library can't be built: ${problem}`, { op: 'build' })
    return ['-DARBOR_CUDA=ON', `-DCMAKE_CUDA_COMPILER=${nvcc.path}`, `-DCMAKE_CUDA_ARCHITECTURES=${architectures.join(';')}`]
  }
}

/** Why these GPUs can't be used whatever library there is, or null. */
export function gpuProblem(found: readonly Gpu[]): string | null {
  const old = found.every(({ computeCapability }) => isOlder(computeCapability, LEAST_CAPABILITY))
  const [first] = found
  if (first && old)
    return `${first.name} has compute capability ${first.computeCapability}; ${LEAST_CAPABILITY} or newer is needed (Ampere, Ada, Hopper, Blackwell). Use the device "cpu".`
  return first ? driverProblem(first.driver) : null
}

/** Why the library can't be built here, with what to do; null where it can. */
export function compilerProblem(nvcc: ReturnType<typeof findNvcc>, found: readonly Gpu[]): string | null {
  const install = `Install the CUDA toolkit (${LEAST_NVCC} or newer) and put its bin on PATH, or use the device "cpu".`
  if (nvcc === null) return `nvcc was not found. ${install}`
  if (isOlder(nvcc.release, LEAST_NVCC)) return `${nvcc.path} is of CUDA ${nvcc.release}, which is too old. ${install}`
  return found[0] ? driverProblem(found[0].driver, nvcc.release) : null
}

/** How many GPUs this process may use. Throws as ensureCuda does. */
export async function countGpus(options: BuildOptions = {}): Promise<number> {
  const { path } = await ensureCuda(options)
  const calls = loadNative(path)
  const count = Number(calls.call('arbor_device_count')())
  if (count < 0) throw new BackendError(calls.lastError(), { op: 'open' })
  return count
}

/** Whether `ensureCuda` would have to build first, or can't. For 'auto', which must not surprise anybody. */
export function cudaIsReady(): boolean {
  const found = gpus()
  if (found.length === 0 || gpuProblem(found) !== null) return false
  const { named, folder } = cudaTarget(found)
  return named || existsSync(folder) || compilerProblem(findNvcc(), found) === null
}

export interface CudaTarget {
  readonly path: string
  readonly folder: string
  /** By ARBOR_CUDA_LIBRARY: built elsewhere. */
  readonly named: boolean
  /** ['90']; null where nobody wrote down what it is built for. */
  readonly architectures: readonly string[] | null
}

/** Where the library for these GPUs lies, or will. */
export function cudaTarget(found: readonly Gpu[]): CudaTarget {
  const ready = process.env['ARBOR_CUDA_LIBRARY']
  if (ready !== undefined) {
    const folder = join(ready, '..')
    return { path: ready, folder, named: true, architectures: recordedArchitectures(folder) }
  }
  const own = [...new Set(found.map(({ computeCapability }) => computeCapability.replace('.', '')))].filter((one) =>
    /^\d+$/.test(one),
  )
  const architectures = own.length > 0 ? own : ARCHITECTURES
  const folder = join(arborHome(), 'native', `${sourceHash('cuda')}-cuda-${architectures.join('-')}`)
  return { path: join(folder, 'libarbor_cuda.so'), folder, named: false, architectures }
}

/** What build.json beside a library says. */
function recordedArchitectures(folder: string): readonly string[] | null {
  const file = join(folder, 'build.json')
  if (!existsSync(file)) return null
  const { definitions = [] } = JSON.parse(readFileSync(file, 'utf8')) as { definitions?: readonly string[] }
  const found = definitions.map((one) => /CMAKE_CUDA_ARCHITECTURES=(.+)/.exec(one)?.[1]).find(Boolean)
  return found ? found.split(';') : null
}

/** Several GPUs sum by NCCL. */
function tellLibraries(gpuCount: number): void {
  tell('ARBOR_CUBLASLT', findCublasLt)
  if (gpuCount > 1) tell('ARBOR_NCCL', findNccl)
}

/** The library looks for others itself; what only we know of them it is told. */
function tell(variable: string, find: () => string | null): void {
  if (process.env[variable] !== undefined) return
  const found = find()
  if (found !== null) process.env[variable] = found
}
