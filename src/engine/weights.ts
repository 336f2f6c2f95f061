// A model's weights by Hugging Face names, whatever file they lie in. safetensors.ts and gguf.ts implement it.

import type { ModelConfig } from './model-config'

export interface WeightFile {
  readonly names: readonly string[]
  shape(name: string): readonly number[]
  has(name: string): boolean
  /** Dequantized to f32; a fresh array. Throws ModelError naming the file when it is cut short. */
  read(name: string): Float32Array
  close(): void
}

export interface OpenModel {
  readonly config: ModelConfig
  readonly weights: WeightFile
}
