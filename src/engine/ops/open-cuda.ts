// Opens a GPU, and says in words why one can't be opened: a library for other GPUs, an old driver, somebody else's work on it.

import { BackendError, OutOfMemoryError } from '../../errors'
import { ensureCuda, gpus } from './build-cuda'
import type { BuildOptions } from './build-tools'
import { gpuProcesses, LEAST_DRIVER } from './cuda-machine'
import { type NativeLibrary, openNative } from './native'
import type { Backend, Precision } from './ops'

export interface CudaOptions extends BuildOptions {
  readonly precision?: Precision | 'auto'
  /** Which of several GPUs; default 0. */
  readonly index?: number
}

/** A backend that has computed something already. Throws BackendError with the reason and what to do. */
export async function openCuda({ precision = 'auto', index = 0, ...options }: CudaOptions): Promise<Backend> {
  const library = await ensureCuda(options)
  let backend: Backend | null = null
  try {
    backend = openNative(library, { precision, device: 'cuda', index })
    await computeSomething(backend)
    return backend
  } catch (error) {
    backend?.close()
    throw explained(error, library)
  }
}

/** A library for other GPUs opens all the same: only its first kernel fails. */
async function computeSomething(backend: Backend): Promise<void> {
  const arena = backend.arena(64)
  const one = arena.tensor([1])
  backend.ops.fill(one, 1)
  await backend.download(one)
  arena.close()
}

function explained(error: unknown, { path }: NativeLibrary): unknown {
  if (!(error instanceof BackendError)) return error
  const advice = adviceFor(error.message, path)
  if (advice === null) return error
  const Kind = error instanceof OutOfMemoryError ? OutOfMemoryError : BackendError
  return new Kind(`${error.message}\n${advice}`, { op: 'open', cause: error })
}

/** What a person can do, by what CUDA said. */
function adviceFor(text: string, path: string): string | null {
  if (/no kernel image|unsupported toolchain|invalid device function/i.test(text)) return otherArchitecture(path)
  if (/driver version is insufficient|driver.* too old/i.test(text))
    return `Update the NVIDIA driver (${LEAST_DRIVER} or newer for CUDA 12, 580.65 for CUDA 13), or use the device "cpu".`
  if (/busy or unavailable|out of memory|no device memory|Is another process/i.test(text)) return inUse()
  if (/can't be loaded/.test(text)) return `Delete ${path} and it is built again; where ARBOR_CUDA_LIBRARY names it, unset that.`
  return null
}

function otherArchitecture(path: string): string {
  const own = gpus().map(({ name, computeCapability }) => `${name}: ${computeCapability}`)
  const architectures = [...new Set(gpus().map(({ computeCapability }) => computeCapability.replace('.', '')))].join(';')
  const how =
    process.env['ARBOR_CUDA_LIBRARY'] === undefined
      ? `Delete its folder, and the next start builds it for this machine: ${path}`
      : `ARBOR_CUDA_LIBRARY names ${path}. Unset it, and the library is built here; or build it with -DCMAKE_CUDA_ARCHITECTURES=${architectures}.`
  return `The CUDA library was built for other GPUs than this machine's (${own.join(', ')}). ${how}`
}

/** Who is on the GPU already. */
function inUse(): string {
  const list = gpuProcesses().map(({ pid, name, mib }) => `${name} (process ${pid}, ${mib} MiB)`)
  const who = list.length > 0 ? `On the GPU now: ${list.join(', ')}.` : 'The driver names no other process on it.'
  return `${who} End what is not needed, choose another GPU with CUDA_VISIBLE_DEVICES, or use the device "cpu".`
}
