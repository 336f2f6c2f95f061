// The GPU that the tests of kernels/cuda run on: this machine's, or where none answers the emulated one.

import { ensureCuda, gpus } from '../../src/engine/ops/build-cuda'
import { type NativeLibrary, openNative } from '../../src/engine/ops/native'
import type { Backend, Precision } from '../../src/engine/ops/ops'
import { emulatedCuda } from './build'

const real = gpus().length

/** For the titles of tests. */
export const CUDA = real > 0 ? 'cuda' : 'cuda, emulated'
export const gpuCount = real > 0 ? real : 2

export function cudaLibrary(): Promise<NativeLibrary> {
  return real > 0 ? ensureCuda() : emulatedCuda()
}

/** One whose rows that decode are summed in training's order, where `exact` is 1. */
export async function openExactGpu(exact = '1'): Promise<Backend> {
  process.env['ARBOR_CUDA_EXACT'] = exact
  try {
    return await openGpu('bf16')
  } finally {
    delete process.env['ARBOR_CUDA_EXACT']
  }
}

export async function openGpu(precision: Precision, index = 0): Promise<Backend> {
  return openNative(await cudaLibrary(), { device: 'cuda', precision, index })
}
