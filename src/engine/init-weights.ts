// Weights of a model that has learnt nothing yet, by their Hugging Face names.

import type { ModelConfig } from './model-config'
import { modelParts } from './model-weights'
import { normals } from './random'
import type { HostTensor } from './safetensors'

const DEVIATION = 0.02
/** The width at which matrices have that deviation, as in GPT-2's smaller kin; narrower models get larger weights. */
const WIDTH = 256

/**
 * Embeddings N(0, 0.02); matrices N(0, 0.02 √(256 / hidden)), those that write to the residual stream (o, down) divided by √(2 layers);
 * norms 1, biases 0; no head where it is the embedding. A weight depends on the seed and its own place alone.
 */
export function initialWeights(config: ModelConfig, seed: number): Map<string, HostTensor> {
  const { hidden, layers, qkvBias, tiedHead, architecture } = config
  const biased = architecture === 'llama' ? /[qkvo]_proj\.bias$/ : /[qkv]_proj\.bias$/
  const has = (name: string) => (name.endsWith('.bias') ? qkvBias && biased.test(name) : !tiedHead)
  const weights = new Map<string, HostTensor>()
  modelParts(config, { has }, ({ pieces, columns }) => {
    for (const [name, rows] of pieces) {
      if (columns === null) {
        weights.set(name, { shape: [rows], data: new Float32Array(rows).fill(name.endsWith('.bias') ? 0 : 1) })
        continue
      }
      const normal = normals(seed, weights.size)
      const wide = /embed_tokens|lm_head/.test(name) ? DEVIATION : DEVIATION * Math.sqrt(WIDTH / hidden)
      const deviation = /\.(o|down)_proj\./.test(name) ? wide / Math.sqrt(2 * layers) : wide
      weights.set(name, {
        shape: [rows, columns],
        data: Float32Array.from({ length: rows * columns }, () => deviation * normal()),
      })
    }
  })
  return weights
}
