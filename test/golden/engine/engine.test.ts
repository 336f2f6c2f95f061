import { describe, it } from 'vitest'
import { ensureNative } from '../../../src/engine/ops/build-native'
import { openNative } from '../../../src/engine/ops/native'
import { openTfjs } from '../../../src/engine/ops/tfjs'
import { describeEngine } from './describe-engine'

describeEngine('tfjs', openTfjs)

describe('native', async () => {
  try {
    const library = await ensureNative()
    describeEngine('cpu', async () => openNative(library))
  } catch (error) {
    it.skip(`the native library can't be built here: ${(error as Error).message}`)
  }
})
