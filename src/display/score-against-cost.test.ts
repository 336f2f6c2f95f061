import { describe, expect, it } from 'vitest'
import { spreadLabels } from './label-places'
import { scoreAgainstCost } from './score-against-cost'
import { stillImage } from './still'

const rows = [
  { label: 'zero-shot', score: 45, low: 38, high: 52, cost: 0, kind: 'nothing' },
  { label: 'GEPA', score: 70, low: 63, high: 76, cost: 72_000, kind: 'prompt' },
  { label: 'SIMBA', score: 60, low: 53, high: 67, cost: 240_000, kind: 'prompt' },
  { label: 'ArborGRPO', score: 90, low: 85, high: 93.5, cost: 1_430_000, kind: 'weights' },
]

describe('score against cost', () => {
  it('draws a point a row in the colour of its kind, over powers of ten, with the interval as a bar', () => {
    const { data, layout, summary } = scoreAgainstCost(rows, { title: 'What it brought' })
    const [free, nothing, prompt, weights] = data
    expect(data.map(({ name }) => name)).toEqual([undefined, 'nothing', 'prompt', 'weights'])
    expect(free!.y, 'what costs nothing, along the axis').toEqual([45, 45])
    expect(prompt!.x[0]).toBeCloseTo(Math.log10(72_000))
    expect(prompt!.y).toEqual([70, 60])
    expect(prompt!.error_y).toMatchObject({ array: [6, 7], arrayminus: [7, 7] })
    expect(prompt!.marker!.color).not.toBe(weights!.marker!.color)
    expect(Number(nothing!.x[0]), 'left of all costs').toBeLessThan(Number(prompt!.x[0]))
    expect(layout.xaxis!.ticktext).toEqual(['0', '50 k', '100 k', '200 k', '500 k', '1 M', '2 M'])
    expect(layout.yaxis!.range).toEqual([30, 108])
    expect(summary).toBe(
      'What it brought: zero-shot 45.0 % for 0 tokens, GEPA 70.0 % for 72 k tokens, SIMBA 60.0 % for 240 k tokens, ArborGRPO 90.0 % for 1.4 M tokens',
    )
  })

  it('is a still picture with its intervals and labels, markup in a label taken as text', () => {
    const picture = stillImage(scoreAgainstCost([{ label: '<b>one</b>', score: 50, low: 40, high: 60, cost: 9 }]))
    expect(picture).toContain('&#60;b&#62;one')
    expect(picture).toMatch(/<path d="M[\d.]+ [\d.]+V[\d.]+M[\d.]+ [\d.]+H/)
    expect(picture).not.toContain('NaN')
  })

  it('is a picture where nothing costs anything, too', () => {
    expect(stillImage(scoreAgainstCost(rows.slice(0, 1)))).not.toContain('NaN')
  })

  it('says what it can not draw', () => {
    expect(() => scoreAgainstCost([])).toThrow('at least one row')
    expect(() => scoreAgainstCost([{ ...rows[0]!, cost: Number.NaN }])).toThrow(
      "The cost of 'zero-shot' must be a number from 0 on, not NaN",
    )
  })
})

describe('labels', () => {
  const point = (label: string, x: number, y: number) => ({ label, x, y, low: y - 0.02, high: y + 0.02 })

  it('stand to the right of a point, and to the left at the end of the axis', () => {
    expect(spreadLabels([point('zero-shot', 0.1, 0.2), point('ArborGRPO', 0.98, 0.9)])).toEqual(['middle right', 'middle left'])
  })

  it('give way to each other where points stand close', () => {
    const places = spreadLabels([point('BootstrapRS', 0.5, 0.9), point('MIPROv2', 0.51, 0.9), point('SIMBA', 0.52, 0.9)])
    expect(new Set(places).size).toBe(3)
  })
})
