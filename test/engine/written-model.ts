// What the tests of written models share: a folder, the golden models, and all logits of a few tokens.

import { join } from 'node:path'
import type { LoraSpec, ModelSource } from '../../src/engine/engine'
import { LocalEngine } from '../../src/engine/local-engine'
import { readLoraSpec } from '../../src/engine/lora-file'
import { openTfjs } from '../../src/engine/ops/tfjs'
import { goldenFolder } from '../golden/engine/open-golden'

const TOKENS = [17, 4, 200, 9, 33, 81, 5, 77, 150, 2]

/** peft wrote it, for the golden llama. */
export const PEFT_ADAPTER = join(goldenFolder('llama'), 'adapter')

export function golden(name: 'llama' | 'qwen2' | 'full-qwen2'): ModelSource {
  return { name, kind: 'folder', path: goldenFolder(name) }
}

/** Logits of ten tokens; with a checkpoint, under the policy that it holds. */
export async function logitsOf(model: ModelSource, checkpoint?: { dir: string; lora: LoraSpec | null }): Promise<Float32Array> {
  const engine = new LocalEngine({ backend: await openTfjs() })
  try {
    await engine.load(model)
    if (!checkpoint) return await engine.logits(null, TOKENS)
    await engine.openPolicy('policy', { lora: checkpoint.lora, seed: 0, checkpoint: checkpoint.dir })
    return await engine.logits('policy', TOKENS)
  } finally {
    await engine.close()
  }
}

export function adapterLogits(): Promise<Float32Array> {
  return logitsOf(golden('llama'), { dir: PEFT_ADAPTER, lora: readLoraSpec(PEFT_ADAPTER) })
}

export function largestGap(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) throw new Error(`${a.length} logits and ${b.length}`)
  return a.reduce((gap, value, i) => Math.max(gap, Math.abs(value - b[i]!)), 0)
}
