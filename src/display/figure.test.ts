import { describe, expect, it } from 'vitest'
import { compareBars } from './compare-bars'
import { CHART_MIME, PLOTLY_MIME } from './figure'
import { groupAdvantages } from './group-advantages'
import { DISPLAY } from './mime'
import { stepRecord, stepRecords } from './records.fixture'
import { rewardCurve } from './reward-curve'
import { signalShare } from './signal-share'
import { stillImage } from './still'

const trace = (figure: { data: readonly { name?: string }[] }, name: string) => figure.data.find((one) => one.name === name)

describe('rewardCurve', () => {
  it('draws the mean, the band cut at the best and worst rollout, and validation on its own axis', () => {
    const figure = rewardCurve(
      {
        records: [stepRecord(1, { reward: 0.9, reward_max: 1 }), stepRecord(2)],
        validation: [
          { step: 0, score: 9 },
          { step: 2, score: 47 },
        ],
      },
      { target: 0.5 },
    )
    expect(trace(figure, 'mean reward')).toMatchObject({ x: [1, 2], y: [0.9, 0.2] })
    expect(trace(figure, 'upper')).toMatchObject({ y: [1, 0.4] })
    expect(trace(figure, 'spread in a group (±1 std)')).toMatchObject({ fill: 'tonexty', y: [0.7, 0] })
    expect(trace(figure, 'validation')).toMatchObject({ x: [0, 2], y: [9, 47], yaxis: 'y2' })
    expect(trace(figure, 'target 0.5')).toMatchObject({ y: [0.5, 0.5] })
    expect(figure.layout.yaxis2).toMatchObject({ overlaying: 'y', range: [0, 100] })
    expect(figure.summary).toBe('Reward over 2 steps: 0.90 → 0.20; validation 9.0 % → 47.0 %')
  })

  it('takes validations from the records when none are given: a record carries the one made before its step', () => {
    const figure = rewardCurve([stepRecord(1, { validation_score: 5 }), stepRecord(2)])
    expect(trace(figure, 'validation')).toMatchObject({ x: [0], y: [5] })
    expect(rewardCurve(stepRecords(2)).layout.yaxis2).toBeUndefined()
  })

  it('bears an empty run', () => {
    expect(rewardCurve([]).summary).toBe('Reward: no step yet')
    expect(stillImage(rewardCurve([]))).toMatch(/^<svg.*<\/svg>$/)
  })
})

describe('groupAdvantages', () => {
  it('places one dot a rollout by its advantage, coloured by its reward, ties side by side', () => {
    const figure = groupAdvantages(stepRecord(2))
    const [dots] = figure.data
    expect(dots?.x).toEqual([1, 0, 0, -1, 0, 0, 0, 0])
    expect(dots?.marker).toMatchObject({ color: [1, 0, 0, -1, 1, 1, 1, 1], cmin: -1, cmax: 1 })
    expect(new Set(dots?.y).size).toBe(1 + 2 + 4) // alone on row 0; the tie of two; the four of row 1
    expect(figure.layout.yaxis?.ticktext?.[1]).toContain('(no spread)')
    expect(figure.data).toHaveLength(1)
  })

  it('adds a map of all steps when there are several, best rollout on top of its group', () => {
    const tiles = groupAdvantages(stepRecords(3)).data[1]!
    expect(tiles.x).toHaveLength(3 * 8)
    expect(tiles.base?.slice(0, 8)).toEqual([0, 1, 2, 3, 4.6, 5.6, 6.6, 7.6])
    expect((tiles.marker!.color as number[]).slice(0, 4)).toEqual([-1, 0, 0, 1])
  })

  it('escapes what the model and the data say', () => {
    const text = JSON.stringify(groupAdvantages(stepRecords(2)))
    expect(text).not.toContain('<script>')
    expect(text).not.toContain('<b>France')
  })

  it('says that it needs a record', () => {
    expect(() => groupAdvantages([])).toThrow('at least one step record')
  })
})

describe('signalShare and compareBars', () => {
  it('draws four panels over the same steps', () => {
    const figure = signalShare(stepRecords(2))
    expect(figure.data.map(({ name, y, yaxis }) => [name, y, yaxis])).toEqual([
      ['in groups without spread', [0, 50], 'y'],
      ['cut at the length limit', [25, 25], 'y'],
      ['clipped low', [0, 0], 'y2'],
      ['clipped high', [1, 1], 'y2'],
      ['entropy', [1, 1], 'y3'],
      ['gradient norm', [0.09, 0.09], 'y4'],
    ])
  })

  it('sets before beside after', () => {
    const figure = compareBars([{ label: 'greedy', before: 54, after: 59 }])
    expect(figure.data.map(({ name, x, y }) => [name, x, y])).toEqual([
      ['before', ['greedy'], [54]],
      ['after', ['greedy'], [59]],
    ])
    expect(figure.summary).toBe('Before and after: greedy 54.0 % → 59.0 %')
  })
})

describe('what a notebook gets', () => {
  it('is plotly JSON, HTML with a still picture, and a line of text', () => {
    const figure = rewardCurve(stepRecords(3))
    const bundle = figure[DISPLAY]()
    expect(bundle['application/vnd.plotly.v1+json']).toMatchObject({ data: figure.data, layout: figure.layout })
    expect(bundle['text/plain']).toBe(figure.summary)
    const html = String(bundle['text/html'])
    const picture = /src="data:image\/svg\+xml;base64,([^"]+)"/.exec(html)?.[1] ?? ''
    expect(Buffer.from(picture, 'base64').toString()).toBe(stillImage(figure))
  })

  it('holds a script that no text of a model can leave', () => {
    const html = String(groupAdvantages(stepRecords(2))[DISPLAY]()['text/html'])
    expect(html.match(/<\/?script/g)).toEqual(['<script', '</script'])
    // The browser's part of it is JavaScript.
    expect(() => new Function(/<script>([\s\S]*)<\/script>/.exec(html)?.[1] ?? '{')).not.toThrow()
  })

  it('draws stills of every chart, without a number that is none', () => {
    const figures = [
      rewardCurve(stepRecords(3)),
      groupAdvantages(stepRecords(3)),
      signalShare(stepRecords(3)),
      compareBars([{ label: 'a', before: 1, after: 2 }]),
    ]
    for (const figure of figures) expect(stillImage(figure)).not.toMatch(/NaN|Infinity|undefined/)
    expect(stillImage(figures[1]!).match(/<circle/g)).toHaveLength(8)
    expect(stillImage(figures[1]!).match(/<rect/g)).toHaveLength(24)
  })
})

describe('a chart in a notebook', () => {
  const figure = rewardCurve(stepRecords(3))

  it('is one bundle: our type for JupyterLab, plotly for VS Code, a picture for code hosts, HTML for pages, text', () => {
    const bundle = figure[DISPLAY]()
    expect(Object.keys(bundle)).toEqual([CHART_MIME, PLOTLY_MIME, 'text/html', 'image/svg+xml', 'text/plain'])
    expect(bundle[CHART_MIME]).toEqual({ key: expect.any(String), revision: expect.any(Number) })
    expect(JSON.parse(JSON.stringify(bundle[PLOTLY_MIME]))).toMatchObject({ data: [{ type: 'scatter' }, {}, {}, {}, {}] })
    const picture = /src="data:image\/svg\+xml;base64,([^"]+)"/.exec(String(bundle['text/html']))![1]!
    expect(Buffer.from(picture, 'base64').toString()).toBe(bundle['image/svg+xml'])
    expect(bundle['text/plain']).toBe(figure.summary)
  })

  it('is HTML and text alone while it changes, under the key that its last state has too', () => {
    const [live, last] = [figure.liveBundle('k'), figure.bundle('k')]
    expect(Object.keys(live)).toEqual(['text/html', 'text/plain'])
    expect(live['text/html']).not.toContain('<img')
    const chartOf = (bundle: Record<string, unknown>) =>
      JSON.parse(/\)\((\{"key".*\})\)<\/script>$/.exec(String(bundle['text/html']))![1]!) as { key: string; revision: number }
    expect([chartOf(live).key, chartOf(last).key]).toEqual(['k', 'k'])
    expect(chartOf(last).revision).toBeGreaterThan(chartOf(live).revision)
  })
})
