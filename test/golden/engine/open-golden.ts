// The tiny models that make.py and make_full.py wrote, for any test that needs a real model of a few thousand weights.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { modelConfig } from '../../../src/engine/model-config'
import { readSafetensorsFolder } from '../../../src/engine/safetensors'
import type { OpenModel } from '../../../src/engine/weights'

export type GoldenModel = 'llama' | 'qwen2' | FullGoldenModel
export type FullGoldenModel = 'full-llama' | 'full-qwen2'

export function goldenFolder(name: GoldenModel): string {
  return join(__dirname, name)
}

/** Two layers, hidden 64, vocabulary 256, context 128; 'full-…' half as wide. Close `weights` when they are read. */
export function openGolden(name: GoldenModel): OpenModel {
  const folder = goldenFolder(name)
  const config = modelConfig(JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')), folder)
  return { config, weights: readSafetensorsFolder(folder) }
}
