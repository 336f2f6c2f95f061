import { describe, expect, it } from 'vitest'
import { initialWeights } from './init-weights'
import { modelConfig } from './model-config'

const TINY = {
  ...{ model_type: 'llama', vocab_size: 512, hidden_size: 64, num_hidden_layers: 3, num_attention_heads: 4 },
  ...{ num_key_value_heads: 2, intermediate_size: 96, max_position_embeddings: 128, tie_word_embeddings: true },
}
const config = modelConfig(TINY, 'test')

/** Of n normal numbers the deviation is off by more than 4/√(2n) of itself with one seed in 16,000; the seed is fixed. */
function deviationOf(values: Float32Array): { value: number; tolerance: number } {
  const mean = values.reduce((sum, x) => sum + x, 0) / values.length
  const value = Math.sqrt(values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / values.length)
  return { value, tolerance: (4 * value) / Math.sqrt(2 * values.length) }
}

describe('initialWeights', () => {
  const weights = initialWeights(config, 3)

  it('has every weight of a tied Llama and no other', () => {
    expect(weights.size).toBe(2 + 3 * 9)
    expect(weights.get('model.layers.2.self_attn.k_proj.weight')!.shape).toEqual([32, 64])
    expect(weights.get('model.layers.0.mlp.down_proj.weight')!.shape).toEqual([64, 96])
    expect([weights.has('lm_head.weight'), weights.has('model.layers.0.self_attn.q_proj.bias')]).toEqual([false, false])
    expect(new Set(weights.get('model.layers.1.input_layernorm.weight')!.data)).toEqual(new Set([1]))
  })

  it('spreads values as the recipe says', () => {
    const expected = {
      'model.embed_tokens.weight': 0.02,
      'model.layers.0.self_attn.q_proj.weight': 0.04,
      'model.layers.1.mlp.up_proj.weight': 0.04,
      'model.layers.2.self_attn.o_proj.weight': 0.04 / Math.sqrt(6),
      'model.layers.0.mlp.down_proj.weight': 0.04 / Math.sqrt(6),
    }
    for (const [name, deviation] of Object.entries(expected)) {
      const { value, tolerance } = deviationOf(weights.get(name)!.data)
      expect(Math.abs(value - deviation), name).toBeLessThan(tolerance)
    }
  })

  it('is normal: as many values beyond one and two deviations as there should be', () => {
    const { data } = weights.get('model.embed_tokens.weight')!
    const share = (sigmas: number) => data.filter((x) => Math.abs(x) > 0.02 * sigmas).length / data.length
    expect(share(1)).toBeCloseTo(0.3173, 2)
    expect(share(2)).toBeCloseTo(0.0455, 2)
  })

  it('the seed alone decides', () => {
    expect(initialWeights(config, 3)).toEqual(weights)
    const other = initialWeights(config, 4)
    for (const [name, { data, shape }] of other) if (shape.length === 2) expect(data).not.toEqual(weights.get(name)!.data)
  })

  it('a Qwen2 of its own head has it, and zero biases', () => {
    const qwen = initialWeights(modelConfig({ ...TINY, model_type: 'qwen2', tie_word_embeddings: false }, 'test'), 3)
    expect(qwen.size).toBe(3 + 3 * 12)
    expect(new Set(qwen.get('model.layers.1.self_attn.v_proj.bias')!.data)).toEqual(new Set([0]))
    expect(qwen.get('lm_head.weight')!.shape).toEqual([512, 64])
  })
})
