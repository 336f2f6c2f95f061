// The GPU that the tests of kernels/cuda run on: this machine's, or where none answers the emulated one.

import { ensureCuda, gpus } from '../../src/engine/ops/build-cuda'
import { type NativeLibrary, openNative } from '../../src/engine/ops/native'
import type { Backend, Precision } from '../../src/engine/ops/ops'
import { emulatedCuda } from './build'

const real = gpus().length

/** For the titles of tests. */
export const CUDA = real > 0 ? 'cuda' : 'cuda, emulated'
/** The emulated one: tests beside this one have their own, so nobody else takes or frees memory of it, and two of it compute the same bits. */
export const ownGpu = real === 0
export const gpuCount = real > 0 ? real : 2

export function cudaLibrary(): Promise<NativeLibrary> {
  return real > 0 ? ensureCuda() : emulatedCuda()
}

/**
 * Rows that decode are summed in training's order where `exact` is '1', in the fastest where it is '0'; null: as it is without a word of the user's.
 * A test that does not care has the fastest: both ways must be well, and cuda-exact.test.ts has the other.
 */
export async function openGpu(precision: Precision, index = 0, exact: string | null = '0'): Promise<Backend> {
  const library = await cudaLibrary()
  const before = process.env['ARBOR_CUDA_EXACT']
  const set = (value: string | null | undefined) => {
    if (typeof value === 'string') process.env['ARBOR_CUDA_EXACT'] = value
    else delete process.env['ARBOR_CUDA_EXACT']
  }
  set(exact)
  try {
    return openNative(library, { device: 'cuda', precision, index })
  } finally {
    set(before)
  }
}
