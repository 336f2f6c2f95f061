import { describe, expect, it } from 'vitest'
import type { Health } from '../../protocol'
import { type Element_, h } from './dom.js'
import { byteSize, duration, jobName, number, short, signed } from './format.js'
import { SHADES, shadeColour, shadeOf } from './palette.js'
import { decimals, extent, scale, stepTicks, ticks } from './scale.js'
import { stepChart } from './step-chart.js'
import { keyedStep, valueAt } from './step-view.js'
import { smoothed } from './tuning.js'
import { rates } from './vitals.js'

/** All elements of a tree that a test names. */
function all(tree: Element_, tag: string): Element_[] {
  const inside = tree.children.flatMap((child) => (typeof child === 'string' ? [] : all(child, tag)))
  return tree.tag === tag ? [tree, ...inside] : inside
}

const text = (tree: Element_): string => tree.children.map((child) => (typeof child === 'string' ? child : text(child))).join('')

describe('numbers of the page', () => {
  it('have a minus sign, their digits, and units that a person reads', () => {
    expect([number(-0.456), number(1204.5, 0), number(null), number(0)]).toEqual(['−0.46', '1,205', '–', '0.00'])
    expect([short(3e-4), short(0.28), short(500), short(-1.5e-8)]).toEqual(['3e−4', '0.28', '500', '−1.5e−8'])
    expect([signed(0.71), signed(-1.2), signed(0)]).toEqual(['+0.71', '−1.20', '+0.00'])
    expect([byteSize(612e6), byteSize(1.452e9), byteSize(23.4e9)]).toEqual(['612 MB', '1.45 GB', '23.4 GB'])
    expect([0.02, 0.27, 42, 200, 9000].map(duration)).toEqual(['20 ms', '0.3 s', '42 s', '3 min', '2.5 h'])
    expect([jobName('grpo:tiny:golden-fern:20250101'), jobName('odd')]).toEqual(['golden-fern', 'odd'])
  })

  it('stand at round places of an axis', () => {
    expect(ticks([0, 1], 5)).toEqual([0, 0.2, 0.4, 0.6, 0.8, 1])
    expect(ticks([-1.1, 1.1], 5)).toEqual([-1, -0.5, 0, 0.5, 1])
    expect(ticks([0.1, 0.16], 3)).toEqual([0.1, 0.12, 0.14, 0.16])
    expect([decimals([0.1, 0.12]), decimals([0, 25]), decimals([])]).toEqual([2, 0, 0])
    expect(stepTicks([0, 40], 9)).toEqual([0, 5, 10, 15, 20, 25, 30, 35, 40])
    expect(stepTicks([1, 7], 20)).toEqual([1, 2, 3, 4, 5, 6, 7])
    expect(stepTicks([1, 5000], 10)).toEqual([500, 1000, 1500, 2000, 2500, 3000, 3500, 4000, 4500, 5000])
  })

  it('have room around them also when there are none, one, or gaps', () => {
    expect(extent([])).toEqual([0, 1])
    expect(extent([null, Number.NaN])).toEqual([0, 1])
    expect(extent([2])).toEqual([1.8, 2.2])
    const [low, high] = extent([null, 0, 1])
    expect([low < 0, high > 1]).toEqual([true, true])
    expect(scale([3, 3], [10, 90])(3)).toBe(10)
  })
})

describe('a chart over steps', () => {
  const view = {
    width: 600,
    steps: [1, 2, 3, 4],
    version: '1',
    hover: null,
    selected: null,
    now: () => null,
    onHover: () => {},
    onSelect: () => {},
  }
  const line = { name: 'mean', colour: '#123456', y: [0, 0.5, null, 1], format: (value: number) => number(value) }

  it('leaves gaps out, and shows in its legend and to a screen reader the value of the step looked at', () => {
    const chart = (more: object) => stepChart({ key: 'k', title: 'T', series: [line] }, { ...view, ...more })
    const path = all(chart({}), 'path').find(({ props }) => props['stroke-width'] === 2 && props['class'] === 'line')!
    expect(String(path.props['d']).split('L')).toHaveLength(3)
    expect(all(chart({}), 'b').map(text)).toEqual(['1.00'])
    expect(all(chart({ hover: 2 }), 'b').map(text)).toEqual(['0.50'])
    const [slider] = all(chart({ selected: 2 }), 'div').map(({ props }) => props)
    expect([slider!['role'], slider!['aria-valuenow'], slider!['aria-valuetext']]).toEqual(['slider', 2, 'step 2: mean 0.50'])
  })

  it('of no step yet, and of one, has axes and no broken path', () => {
    for (const steps of [[], [1]]) {
      const tree = stepChart(
        { key: 'k', title: 'T', series: [{ ...line, y: steps }] },
        { ...view, steps, version: String(steps.length) },
      )
      for (const { props } of all(tree, 'path')) expect(String(props['d'])).not.toMatch(/NaN|Infinity|undefined/)
      expect(all(tree, 'text').length).toBeGreaterThan(2)
    }
  })

  it('is walked by keys, within its steps', () => {
    const steps = [3, 4, 5, 9]
    const from = (key: string, now: number) => keyedStep(key, steps, now)
    expect([from('ArrowRight', 5), from('ArrowLeft', 3), from('End', 3), from('Home', 9)]).toEqual([9, 3, 9, 3])
    expect([from('Enter', 5), keyedStep('Home', [], 1), from('ArrowLeft', 77)]).toEqual([null, null, 5])
  })

  it('shows of a series with gaps the last value up to a step', () => {
    const validation = { x: [0, 10, 20], y: [36, 40, 52] }
    expect([5, 10, 25, -1].map((step) => valueAt(validation, [], step))).toEqual([36, 40, 52, null])
  })
})

describe('what is told of the server', () => {
  const health = (time: number, sampled: number) =>
    ({ time, work: { sampled_tokens: sampled, prompt_tokens: 0, trained_tokens: 0 } }) as unknown as Health

  it('is a rate over some seconds, so that bursts are no peaks', () => {
    const answers = [health(100, 0), health(101, 800), health(102, 800), health(104, 800), health(120, 1600)]
    expect(rates(answers, ({ work }) => work.sampled_tokens)).toEqual([800, 400, 200])
    expect(rates([health(1, 5)], ({ work }) => work.sampled_tokens)).toEqual([])
  })

  it('after a restart, where counters begin anew, is no negative speed', () => {
    expect(rates([health(1, 900), health(2, 0)], ({ work }) => work.sampled_tokens)).toEqual([0])
  })
})

describe('colours and curves', () => {
  it('go from red over grey to blue', () => {
    expect([shadeColour(0), shadeColour((SHADES - 1) / 2), shadeColour(SHADES - 1)]).toEqual([
      'rgb(196,71,31)',
      'rgb(185,192,199)',
      'rgb(31,111,178)',
    ])
    expect([shadeOf(-3), shadeOf(0.5), shadeOf(9)]).toEqual([0, 10, 20])
  })

  it('are smoothed without a pull towards zero at the start', () => {
    expect(smoothed([4, 4, 4])).toEqual([4, 4, 4])
    expect(smoothed([])).toEqual([])
  })
})

it('an element leaves out what is absent', () => {
  const tree = h('p', null, 'a', false, null, undefined, [h('b'), 0])
  expect(tree.children).toEqual(['a', { tag: 'b', props: {}, children: [] }, '0'])
})
