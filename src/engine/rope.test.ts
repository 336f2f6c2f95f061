import { describe, expect, it } from 'vitest'
import { openGolden } from '../../test/golden/engine/open-golden'
import { ModelError } from '../errors'
import { ropeFrequencies, ropeTable } from './rope'

const { config: llama, weights } = openGolden('llama')
weights.close()
const withScaling = (ropeScaling: Record<string, unknown> | null) => ({ ...llama, headDim: 16, ropeTheta: 10000, ropeScaling })
const LLAMA3 = { factor: 4, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 32 }

describe('rotary positions', () => {
  // inv_freq of transformers' LlamaRotaryEmbedding, and its cosines at position 100.
  const plainTail = [0.025, 0.0079056947, 0.0025, 0.00079056947, 0.00025, 0.000079056947]
  it.each([
    ['default', null, [1, 0.3162277638912201, 0.1, 0.03162277862, 0.01, 0.003162277862, 0.001, 0.0003162277863]],
    ['linear', { rope_type: 'linear', factor: 4 }, [0.25, 0.079056941, ...plainTail]],
    ['llama3', { rope_type: 'llama3', ...LLAMA3 }, [1, 0.1273239552974701, ...plainTail]],
    ['llama3 under its old name', { type: 'llama3', ...LLAMA3 }, [1, 0.1273239552974701, ...plainTail]],
  ])('frequencies of %s are those of transformers', (_, scaling, expected) => {
    for (const [i, frequency] of ropeFrequencies(withScaling(scaling)).entries())
      expect(Math.abs(frequency / expected[i]! - 1)).toBeLessThan(1e-6)
  })

  it('the table holds cosines, then sines, of each position', () => {
    const table = ropeTable(withScaling(null), 101)
    const cosines = [0.86231887, 0.97868282, -0.83907151, -0.99978608, 0.54030234, 0.95041525, 0.99500418, 0.99950004]
    for (const [i, cosine] of cosines.entries()) {
      expect(table[100 * 16 + i]).toBeCloseTo(cosine, 6)
      expect(table[100 * 16 + 8 + i]! ** 2).toBeCloseTo(1 - cosine ** 2, 6)
    }
    expect([...table.subarray(0, 16)]).toEqual([1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0])
  })

  it('a scaling it does not know is an error that names it', () => {
    expect(() => ropeFrequencies(withScaling({ rope_type: 'yarn', factor: 4 }))).toThrow(/"yarn" is not supported/)
    expect(() => ropeFrequencies(withScaling({ rope_type: 'linear' }))).toThrow(ModelError)
  })
})
