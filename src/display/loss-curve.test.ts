import { describe, expect, it } from 'vitest'
import { lossCurve } from './loss-curve'
import { stillImage } from './still'

const points = Array.from({ length: 1300 }, (_, i) => ({
  step: i + 1,
  loss: i < 600 ? 10 : 0.1,
  ...((i + 1) % 650 === 0 ? { heldOutLoss: 0.2 } : {}),
}))

describe('loss curve', () => {
  it('draws powers of ten at equal distances and labels them with the loss itself', () => {
    const { data, layout } = lossCurve(points)
    expect(data[0]!.y[0]).toBeCloseTo(1)
    expect(data[0]!.y.at(-1)).toBeCloseTo(-1)
    expect(layout.yaxis!.ticktext).toEqual(['0.1', '0.2', '0.5', '1', '2', '5', '10'])
  })

  it('draws long runs with fewer points, the last one included, and held-out losses all', () => {
    const [training, heldOut] = lossCurve(points).data
    expect(training!.x.length).toBeLessThanOrEqual(600)
    expect(training!.x.at(-1)).toBe(1300)
    expect(heldOut!.x).toEqual([650, 1300])
  })

  it('shows a single update as a point, with labels about it', () => {
    const { data, layout } = lossCurve([{ step: 1, loss: 1.29 }])
    expect(data[0]!.mode).toBe('lines+markers')
    expect(layout.yaxis!.ticktext).toEqual(['1.11', '1.29', '1.5'])
  })

  it('is a picture also before the first step', () => {
    const figure = lossCurve([])
    expect(figure.summary).toContain('no step yet')
    expect(stillImage(figure)).not.toContain('NaN')
  })
})
