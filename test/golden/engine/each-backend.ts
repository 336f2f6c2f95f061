// Tests that hold on every backend are declared once and run on each that this machine has.

import { describe, it } from 'vitest'
import { ensureNative } from '../../../src/engine/ops/build-native'
import { openNative } from '../../../src/engine/ops/native'
import type { Backend, Precision } from '../../../src/engine/ops/ops'
import { openTfjs } from '../../../src/engine/ops/tfjs'
import { CUDA, openGpu } from '../../emulator/gpu'

/** Declares tests of one backend; `precision` is that of its frozen weights, on a GPU of its activations as well. */
type Declare = (name: string, open: () => Promise<Backend>, precision: Precision | 'bf16 throughout') => void

/** Calls `declare` for TensorFlow.js and for the native library in each precision; where that can't be built, a skipped test says why. */
export function describeEachBackend(declare: Declare): void {
  declare('tfjs', openTfjs, 'f32')
  describeNative(declare)
}

/** On the first GPU, or on the emulated one. */
export function describeCuda(declare: Declare): void {
  for (const precision of ['f32', 'bf16'] as const)
    declare(`${CUDA}, ${precision}`, () => openGpu(precision), precision === 'bf16' ? 'bf16 throughout' : precision)
}

/** The same for the native libraries alone: models of millions of weights take TensorFlow.js in plain JavaScript too long. */
export function describeNative(declare: Declare): void {
  describeCuda(declare)
  describe('native', async () => {
    try {
      const library = await ensureNative()
      for (const precision of ['f32', 'bf16'] as const)
        declare(`cpu, ${precision}`, async () => openNative(library, { precision }), precision)
    } catch (error) {
      it.skip(`the native library can't be built here: ${(error as Error).message}`)
    }
  })
}
