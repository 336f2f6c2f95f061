// Tests that hold on every backend are declared once and run on each that this machine has.

import { describe, it } from 'vitest'
import { ensureNative } from '../../../src/engine/ops/build-native'
import { openNative } from '../../../src/engine/ops/native'
import type { Backend } from '../../../src/engine/ops/ops'
import { openTfjs } from '../../../src/engine/ops/tfjs'

/** Calls `declare` for TensorFlow.js and for the native library; where that can't be built, a skipped test says why. */
export function describeEachBackend(declare: (name: string, open: () => Promise<Backend>) => void): void {
  declare('tfjs', openTfjs)
  describeNative(declare)
}

/** The same for the native library alone: models of millions of weights take TensorFlow.js in plain JavaScript too long. */
export function describeNative(declare: (name: string, open: () => Promise<Backend>) => void): void {
  describe('native', async () => {
    try {
      const library = await ensureNative()
      declare('cpu', async () => openNative(library))
    } catch (error) {
      it.skip(`the native library can't be built here: ${(error as Error).message}`)
    }
  })
}
