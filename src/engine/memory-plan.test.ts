import { describe, expect, it } from 'vitest'
import { openGolden } from '../../test/golden/engine/open-golden'
import { planActivations, weightBytes } from './memory-plan'

const GIB = 1024 ** 3

describe('planActivations', () => {
  const { config, weights } = openGolden('llama')
  weights.close()

  it('grows with the memory that is allowed, byte for byte', () => {
    const [two, three] = [2, 3].map((gib) => planActivations(config, { precision: 'f32', memory: gib * GIB })) as [number, number]
    expect(three - two).toBe(GIB)
    expect(two).toBeLessThan(2 * GIB)
  })

  it('leaves frozen weights in bf16 half the room', () => {
    const room = (precision: 'f32' | 'bf16') => planActivations({ ...config, layers: 5000 }, { precision, memory: 8 * GIB })
    expect(room('bf16')).toBeGreaterThan(room('f32'))
  })

  it('on a GPU gives a small model room for large packs, and a large one as much as its weights take, where it is free', () => {
    const room = (layers: number, free: number) =>
      planActivations({ ...config, layers }, { precision: 'bf16', device: { free: free * GIB } }) / GIB
    expect(room(2, 139)).toBeGreaterThan(6)
    const layersOf = (gib: number) =>
      Math.round(
        (gib * GIB) / (weightBytes({ ...config, layers: 1001 }, 'bf16') - weightBytes({ ...config, layers: 1000 }, 'bf16')),
      )
    expect(room(layersOf(3), 139)).toBe(4)
    expect(room(layersOf(14), 120)).toBeCloseTo(14, 1)
    expect(room(layersOf(14), 24)).toBe(8)
    expect(room(2, 9)).toBe(3)
  })

  it('never falls so low that packs are too small to be worth it', () => {
    expect(planActivations(config, { precision: 'f32', memory: 0 })).toBe(GIB / 4)
  })
})
