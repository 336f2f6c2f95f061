// What arbor-nb doctor says of GPUs: what answers, what builds the CUDA library, whether it is there and computes.

import { existsSync } from 'node:fs'
import {
  askGpus,
  findCublasLt,
  findNccl,
  findNvcc,
  type Gpu,
  type GpuProcess,
  gpuProcesses,
  isOlder,
  LEAST_NVCC,
} from '../engine/ops/cuda-machine'

/** 'missing' stops the main road; 'absent' only means less speed or comfort. */
export interface Finding {
  readonly what: string
  readonly state: 'ok' | 'missing' | 'absent'
  readonly detail: string
  readonly hint?: string
}

const TOOLKIT_HINT = `the CUDA toolkit, ${LEAST_NVCC} or newer, from https://developer.nvidia.com/cuda-downloads; its bin on PATH`
const LOADABLE = 'ARBOR_CUBLASLT names a file elsewhere'

/** A machine without a GPU hears that in one line. */
export async function gpuFindings(): Promise<Finding[]> {
  const { gpus, problem } = askGpus()
  if (problem !== null) return [{ what: 'GPU', state: 'absent', detail: `${problem}; the CPU does the work` }]
  return [...gpus.map(gpu), ...users(gpuProcesses()), compiler(), cublasLt(), ...nccl(gpus), await library(gpus)]
}

function gpu({ name, driver, computeCapability, totalMib, freeMib }: Gpu): Finding {
  const memory = Number.isFinite(totalMib) ? `, ${gib(freeMib)} of ${gib(totalMib)} GiB free` : '' // some don't tell
  return { what: 'GPU', state: 'ok', detail: `${name}, compute capability ${computeCapability}${memory}, driver ${driver}` }
}

function users(processes: readonly GpuProcess[]): Finding[] {
  if (processes.length === 0) return []
  const detail = processes.map(({ pid, name, mib }) => `${name} (process ${pid}, ${gib(mib)} GiB)`).join(', ')
  return [{ what: 'on the GPU', state: 'ok', detail }]
}

function compiler(): Finding {
  const nvcc = findNvcc()
  if (nvcc === null) return { what: 'nvcc', state: 'absent', detail: 'not found (builds the CUDA library)', hint: TOOLKIT_HINT }
  const detail = `CUDA ${nvcc.release} (${nvcc.path})`
  if (!isOlder(nvcc.release, LEAST_NVCC)) return { what: 'nvcc', state: 'ok', detail }
  return { what: 'nvcc', state: 'absent', detail: `${detail}, too old`, hint: TOOLKIT_HINT }
}

function cublasLt(): Finding {
  const found = findCublasLt()
  if (found !== null) return { what: 'cuBLASLt', state: 'ok', detail: found }
  const hint = `the CUDA toolkit, or: pip install nvidia-cublas; ${LOADABLE}`
  return { what: 'cuBLASLt', state: 'absent', detail: 'not found (matrix products on the GPU)', hint }
}

/** One GPU needs none. */
function nccl(gpus: readonly Gpu[]): Finding[] {
  if (gpus.length < 2) return []
  const found = findNccl()
  if (found !== null) return [{ what: 'NCCL', state: 'ok', detail: found }]
  const detail = "not found (several GPUs then sum gradients in the host's memory, which takes longer)"
  return [
    { what: 'NCCL', state: 'absent', detail, hint: 'pip install nvidia-nccl-cu13 (or -cu12); ARBOR_NCCL names a file elsewhere' },
  ]
}

/** Opened only where it is built: that tells more than its file. */
async function library(gpus: readonly Gpu[]): Promise<Finding> {
  const what = 'CUDA library'
  const { compilerProblem, cudaTarget, gpuProblem } = await import('../engine/ops/build-cuda')
  const unfit = gpuProblem(gpus)
  if (unfit !== null) return { what, state: 'absent', detail: 'not used', hint: unfit }
  const { path, named, architectures } = cudaTarget(gpus)
  const target = architectures ? `for compute capability ${architectures.map(dotted).join(', ')}` : 'for unknown GPUs'
  if (!existsSync(path)) {
    if (named) return { what, state: 'absent', detail: `ARBOR_CUDA_LIBRARY is ${path}: no such file`, hint: 'unset it' }
    const problem = compilerProblem(findNvcc(), gpus)
    const detail = `not built yet ${target}`
    return problem === null
      ? { what, state: 'ok', detail: `${detail}: the first use builds it, in about two minutes` }
      : { what, state: 'absent', detail, hint: problem }
  }
  try {
    const { openCuda } = await import('../engine/ops/open-cuda')
    const backend = await openCuda({})
    const { description, precision } = backend
    backend.close()
    return { what, state: 'ok', detail: `built ${target}, ${description}, frozen weights in ${precision} (${path})` }
  } catch (error) {
    const [first = '', ...rest] = (error as Error).message.split('\n')
    return { what, state: 'absent', detail: `built ${target}, but: ${first}`, ...(rest.length > 0 && { hint: rest.join(' ') }) }
  }
}

/** '90' is 9.0, '100a' 10.0a. */
function dotted(architecture: string): string {
  return architecture.replace(/^(\d+)(\d)(\w*)$/, '$1.$2$3')
}

function gib(mib: number): string {
  return (mib / 1024).toFixed(1)
}
