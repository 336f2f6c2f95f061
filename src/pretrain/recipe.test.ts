import { describe, expect, it } from 'vitest'
import { modelConfig } from '../engine/model-config'
import { OptionError } from '../errors'
import { checkWishes, makeRecipe, stepConfig } from './recipe'
import { configJson, modelSize, SIZE_NAMES, sizeName } from './sizes'

/** Weights of a Llama with a tied head. */
function parameters(name: string): number {
  const { hidden, layers, heads, kvHeads, headDim, inner, vocab } = modelSize(name)
  const attention = 2 * hidden * heads * headDim + 2 * hidden * kvHeads * headDim
  return vocab * hidden + layers * (attention + 3 * hidden * inner + 2 * hidden) + hidden
}

describe('sizes', () => {
  it.each([
    ['0.6M', 627_552],
    ['1.5M', 1_517_184],
    ['3M', 2_865_600],
    ['5M', 4_951_296],
  ])('%s has %i parameters', (name, count) => expect(parameters(name)).toBe(count))

  it.each(SIZE_NAMES)('%s: the engine reads its config.json as what it is', (name) => {
    const size = modelSize(name)
    const { steps: _, ...shape } = size
    expect(modelConfig(configJson(size, 'float32'), name)).toMatchObject({
      ...shape,
      architecture: 'llama',
      tiedHead: true,
      qkvBias: false,
    })
  })

  it('another name is an error that lists them', () => {
    expect([sizeName('3m'), sizeName('MINI'), modelSize('1.5m')]).toEqual(['3M', 'mini', modelSize('1.5M')])
    expect(() => modelSize('2M')).toThrow(/0\.6M, 1\.5M, 3M, 5M/)
  })
})

describe('recipe', () => {
  it('has 100 warm-up steps, the full rate to 60 % of the run, then a line to 0', () => {
    const recipe = makeRecipe({ size: '1.5M' })
    const rate = (step: number) => stepConfig(recipe, step).learningRate
    expect(recipe.steps).toBe(1200)
    expect([rate(50), rate(100), rate(719), rate(960)].map((value) => Number(value.toFixed(6)))).toEqual([
      0.0015, 0.003, 0.003, 0.0015,
    ])
    expect(rate(1199)).toBeLessThan(1e-5)
    expect(rate(1199)).toBeGreaterThan(0)
  })

  it('a run goes on as it was begun: the same wishes and none are fine, others are named', () => {
    const recipe = makeRecipe({ size: '3M', seed: 4 })
    checkWishes(recipe, { size: '3M', steps: undefined })
    expect(() => checkWishes(recipe, { seed: 5 })).toThrow(OptionError)
    expect(() => checkWishes(recipe, { seed: 5 })).toThrow(/begun with seed 4/)
  })
})
