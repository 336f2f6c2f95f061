import { afterEach, describe, expect, it, vi } from 'vitest'
import { openGolden } from '../../test/golden/engine/open-golden'
import { precisionFor } from './precision'

describe('precisionFor', () => {
  const { config, weights } = openGolden('llama')
  weights.close()
  afterEach(() => vi.unstubAllEnvs())

  it('leaves the choice to the device, and a wish as it is', () => {
    vi.stubEnv('ARBOR_PRECISION', undefined)
    expect((['auto', 'f32', 'bf16'] as const).map((wish) => precisionFor(config, wish))).toEqual(['auto', 'f32', 'bf16'])
  })

  it('a model too narrow for bf16 gets f32, unless somebody wishes', () => {
    const narrow = { ...config, hidden: 64 }
    vi.stubEnv('ARBOR_PRECISION', undefined)
    expect([precisionFor(narrow, 'auto', 65), precisionFor(narrow, 'auto', 64)]).toEqual(['f32', 'auto'])
    expect(precisionFor(narrow, 'bf16', 65)).toBe('bf16')
    vi.stubEnv('ARBOR_PRECISION', 'bf16')
    expect(precisionFor(narrow, 'auto', 65)).toBe('auto') // the device reads the environment
  })

  it('a wish of the environment stands, whatever the model', () => {
    vi.stubEnv('ARBOR_PRECISION', 'bf16')
    expect([precisionFor({ ...config, hidden: 1 }, 'auto'), precisionFor(config, 'f32')]).toEqual(['auto', 'f32'])
  })
})
