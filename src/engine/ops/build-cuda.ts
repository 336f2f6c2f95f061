// Builds the native CUDA library at first use, with the toolkit's nvcc, into $ARBOR_HOME/native/<hash of the sources>-cuda…/.

import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { BackendError } from '../../errors'
import { arborHome } from '../arbor-home'
import { type BuildOptions, buildTarget, ensureTools, sourceHash } from './build-tools'
import type { NativeLibrary } from './native'

/** What the driver says of one GPU. */
export interface Gpu {
  readonly name: string
  readonly driver: string
  /** '9.0' */
  readonly computeCapability: string
}

/** The GPUs that answer; none without a driver. */
export function gpus(): readonly Gpu[] {
  const asked = spawnSync('nvidia-smi', ['--query-gpu=name,driver_version,compute_cap', '--format=csv,noheader'], {
    encoding: 'utf8',
    timeout: 10_000,
  })
  if (asked.status !== 0) return []
  return asked.stdout
    .trim()
    .split('\n')
    .filter(Boolean)
    .map((line) => {
      const [name = '', driver = '', computeCapability = ''] = line.split(',').map((part) => part.trim())
      return { name, driver, computeCapability }
    })
}

/** Architectures that a build is for where no GPU says otherwise: Ampere and Hopper in machine code, newer ones through PTX. */
const ARCHITECTURES = ['80', '90']

/**
 * The library for this machine's GPUs, built when it isn't there yet; `ARBOR_CUDA_LIBRARY` names one that was built elsewhere. Throws BackendError
 * that says what is missing: a GPU that answers, or the toolkit's nvcc.
 */
export async function ensureCuda({ log = () => {} }: BuildOptions = {}): Promise<NativeLibrary> {
  const found = gpus()
  if (found.length === 0)
    throw new BackendError('No NVIDIA GPU answers (nvidia-smi). Use the device "cpu" or "auto".', { op: 'open' })
  const ready = process.env['ARBOR_CUDA_LIBRARY']
  useCublas()
  if (ready !== undefined) return { path: ready, description: found[0]!.name }
  const { folder, architectures } = cudaTarget(found)
  const path = join(folder, 'libarbor_cuda.so')
  await buildTarget({
    folder,
    target: 'arbor_cuda',
    what: `the CUDA library for ${found[0]!.name} (once, about two minutes)`,
    definitions: [
      '-DARBOR_CUDA=ON',
      `-DCMAKE_CUDA_COMPILER=${nvccOrThrow()}`,
      `-DCMAKE_CUDA_ARCHITECTURES=${architectures.join(';')}`,
    ],
    prepare: () => ensureTools(log),
    log,
  })
  return { path, description: found[0]!.name }
}

/** Whether `ensureCuda` would have to build first, or can't. For 'auto', which must not surprise anybody. */
export function cudaIsReady(): boolean {
  const found = gpus()
  if (found.length === 0) return false
  return process.env['ARBOR_CUDA_LIBRARY'] !== undefined || existsSync(cudaTarget(found).folder) || nvcc() !== null
}

function cudaTarget(found: readonly Gpu[]): { folder: string; architectures: readonly string[] } {
  const own = [...new Set(found.map(({ computeCapability }) => computeCapability.replace('.', '')))].filter((one) =>
    /^\d+$/.test(one),
  )
  const architectures = own.length > 0 ? own : ARCHITECTURES
  return { folder: join(arborHome(), 'native', `${sourceHash('cuda')}-cuda-${architectures.join('-')}`), architectures }
}

/** The toolkit's compiler: on PATH, or where the toolkit is installed by default. */
export function nvcc(): string | null {
  const places = [process.env['CUDA_HOME'], process.env['CUDA_PATH'], '/usr/local/cuda', '/opt/cuda']
  const candidates = ['nvcc', ...places.flatMap((place) => (place ? [join(place, 'bin', 'nvcc')] : []))]
  return candidates.find((candidate) => spawnSync(candidate, ['--version'], { timeout: 10_000 }).status === 0) ?? null
}

function nvccOrThrow(): string {
  const found = nvcc()
  if (found !== null) return found
  throw new BackendError(
    'The CUDA library can\'t be built: nvcc was not found. Install the CUDA toolkit (12.4 or newer) and put its bin on PATH, or use the device "cpu".',
    { op: 'build' },
  )
}

/** Python's package of cuBLAS serves where no toolkit's is installed. */
function useCublas(): void {
  if (process.env['ARBOR_CUBLASLT'] !== undefined) return
  const script =
    "import importlib.util as u; [print(p) for n in ('nvidia',) for p in (u.find_spec(n).submodule_search_locations or [])]"
  const asked = spawnSync('python3', ['-c', script], { encoding: 'utf8', timeout: 20_000 })
  if (asked.status !== 0) return
  for (const root of asked.stdout.trim().split('\n').filter(Boolean))
    for (const folder of ['cu13', 'cublas', 'cu12'].map((name) => join(root, name, 'lib'))) {
      const library = existsSync(folder) ? readdirSync(folder).find((name) => name.startsWith('libcublasLt.so')) : undefined
      if (library === undefined) continue
      process.env['ARBOR_CUBLASLT'] = join(folder, library)
      return
    }
}
