import { describe, expect, it } from 'vitest'
import { curves, runningMean } from './curves'
import { stackedBars } from './stacked-bars'
import { stillImage } from './still'

const placed = (figure: { data: readonly { name?: string; xaxis?: string; yaxis?: string }[] }) =>
  figure.data.map(({ name, xaxis, yaxis }) => [name, xaxis, yaxis])

describe('curves', () => {
  it('draws every line over steps from 1, a colour each', () => {
    const figure = curves([
      { name: '5e-6', y: [0.1, 0.2] },
      { name: '3e-4', y: [0.1, 0.9, 1] },
    ])
    expect(figure.data.map(({ x, y }) => [x, y])).toEqual([
      [
        [1, 2],
        [0.1, 0.2],
      ],
      [
        [1, 2, 3],
        [0.1, 0.9, 1],
      ],
    ])
    expect(figure.data[0]!.line!.color).not.toBe(figure.data[1]!.line!.color)
    expect(figure.summary).toBe('Over steps: 5e-6 0.1 → 0.2, 3e-4 0.1 → 1')
  })

  it('sets panels side by side on one scale; a name keeps its colour and stands in the legend once', () => {
    const lines = (top: number) => [
      { name: 'metric', y: [40, top] },
      { name: 'exact match', y: [40, 0] },
    ]
    const figure = curves({ hole: lines(99), mended: lines(95) }, { unit: '%' })
    expect(placed(figure)).toEqual([
      ['metric', 'x', 'y'],
      ['exact match', 'x', 'y'],
      ['metric', 'x2', 'y2'],
      ['exact match', 'x2', 'y2'],
    ])
    expect(figure.data.map(({ showlegend }) => showlegend)).toEqual([true, true, false, false])
    expect(figure.data[0]!.line!.color).toBe(figure.data[2]!.line!.color)
    expect(figure.layout.yaxis!.range).toEqual(figure.layout.yaxis2!.range)
    expect(figure.layout.xaxis!.domain![1]).toBeLessThan(figure.layout.xaxis2!.domain![0])
    expect(figure.layout.annotations.map(({ text }) => text)).toEqual(['hole', 'mended'])
    expect(figure.summary).toBe(
      'Over steps: hole: metric 40 → 99 %, exact match 40 → 0 %; mended: metric 40 → 95 %, exact match 40 → 0 %',
    )
  })

  it('smooths over the steps so far, and leaves gaps where nothing is known', () => {
    expect(runningMean([1, 3, 5, 7], 2)).toEqual([1, 2, 4, 6])
    expect(runningMean([1, null, 5], 3)).toEqual([1, null, 3])
    expect(stillImage(curves([{ name: 'a', y: [null, 1, null] }]))).not.toMatch(/NaN|undefined/)
  })

  it('says that it needs a line, and how many panels fit', () => {
    expect(() => curves([])).toThrow('at least one line')
    const panel = [{ name: 'a', y: [1] }]
    expect(() => curves({ a: panel, b: panel, c: panel, d: panel, e: panel })).toThrow('at most 4 panels; these are 5')
  })
})

describe('stackedBars', () => {
  const figure = stackedBars([
    { label: 'before', parts: { careful: 0.25, hasty: 0.72, none: 0.03 } },
    { label: 'after', parts: { careful: 1 } },
  ])

  it('puts each part on those before it, and a number where there is room', () => {
    expect(figure.data.map(({ name, y, base, text }) => [name, y, base, text])).toEqual([
      ['careful', [25, 100], [0, 0], ['25 %', '100 %']],
      ['hasty', [72, 0], [25, 100], ['72 %', '']],
      ['none', [3, 0], [97, 100], ['', '']],
    ])
    expect(figure.summary).toBe('Shares: before: careful 25 %, hasty 72 %, none 3 %; after: careful 100 %, hasty 0 %, none 0 %')
  })

  it('draws them in the still picture at full width', () => {
    const still = stillImage(figure)
    expect(still).toContain('>72 %</text>')
    const widths = [...still.matchAll(/<rect x="[\d.]+" y="(?!37)[\d.]+" width="([\d.]+)"/g)].map((match) => match[1])
    expect(new Set(widths).size).toBe(1)
  })

  it('says that it needs parts', () => {
    expect(() => stackedBars([])).toThrow('at least one row')
  })
})
