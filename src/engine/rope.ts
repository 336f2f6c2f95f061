// Rotary position embedding: one table of cosines and sines for all positions, in the precision Hugging Face computes it (f32).

import { ModelError } from '../errors'
import type { ModelConfig } from './model-config'

/** [positions, headDim] = cos[headDim / 2] | sin[headDim / 2]. Throws ModelError for a kind of scaling we don't know. */
export function ropeTable(config: ModelConfig, positions = config.contextLength): Float32Array {
  const half = config.headDim / 2
  const frequencies = ropeFrequencies(config)
  const table = new Float32Array(positions * config.headDim)
  for (let position = 0; position < positions; position++)
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(position * frequencies[i]!)
      table[position * config.headDim + i] = Math.cos(angle)
      table[position * config.headDim + half + i] = Math.sin(angle)
    }
  return table
}

/** Radians per position of each pair of values, after the model's scaling. */
export function ropeFrequencies(config: ModelConfig): Float32Array {
  const frequencies = new Float32Array(config.headDim / 2)
  for (let i = 0; i < frequencies.length; i++) frequencies[i] = 1 / config.ropeTheta ** ((2 * i) / config.headDim)
  const scaling = config.ropeScaling
  const kind = scaling === null ? 'default' : String(scaling['rope_type'] ?? scaling['type'])
  if (scaling === null || kind === 'default') return frequencies
  const value = (key: string): number => {
    const number = scaling[key]
    if (typeof number !== 'number') throw new ModelError(`rope_scaling of kind "${kind}" needs the number "${key}".`)
    return number
  }
  if (kind === 'linear') return frequencies.map((frequency) => frequency / value('factor'))
  if (kind === 'llama3') return frequencies.map((frequency) => llama3(frequency, value))
  if (kind === 'divisors') return frequencies.map((frequency, i) => frequency / (scaling['divisors'] as number[])[i]!) // a GGUF file's
  throw new ModelError(`rope_scaling of kind "${kind}" is not supported. Supported: default, linear, llama3.`)
}

/** Llama 3.1: long waves are stretched by `factor`, short ones kept, those between blended. */
function llama3(frequency: number, value: (key: string) => number): number {
  const factor = value('factor')
  const low = value('low_freq_factor')
  const high = value('high_freq_factor')
  const context = value('original_max_position_embeddings')
  const waves = (context * frequency) / (2 * Math.PI) // turns within the original context
  if (waves < low) return frequency / factor
  if (waves > high) return frequency
  const blend = (waves - low) / (high - low)
  return (1 - blend) * (frequency / factor) + blend * frequency
}
