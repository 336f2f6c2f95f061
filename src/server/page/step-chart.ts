// A chart over steps: lines, bands and points on one or two axes, with the values of one step in its legend. All charts of a job share
// the step that the pointer is at and the step that is being read; each is a slider for the keyboard.

import { type Child, type Element_, h, memo } from './dom.js'
import { number } from './format.js'
import { decimals, extent, type Range, type Scale, scale, stepTicks, ticks } from './scale.js'
import { type ChartView, caption, diamond, type Series, slider } from './step-view.js'

export interface StepChart {
  readonly key: string
  readonly title: string
  readonly series: readonly Series[]
  readonly height?: number
  /** Of the left axis; default: what the series need. */
  readonly range?: Range
  readonly format?: (value: number) => string
  readonly rightRange?: Range
  readonly rightFormat?: (value: number) => string
  /** One of several beside one another. */
  readonly small?: boolean
}

interface Area {
  readonly left: number
  readonly right: number
  readonly top: number
  readonly bottom: number
}

export function stepChart(chart: StepChart, view: ChartView): Element_ {
  const { key, title, series, height = 260, small = false } = chart
  const own = series.flatMap(({ x }) => x ?? [])
  const steps: Range = [
    Math.min(1, ...own.slice(0, 1), ...view.steps.slice(0, 1)),
    Math.max(2, ...own.slice(-1), ...view.steps.slice(-1)),
  ]
  const right = series.some((one) => one.right)
  const area = { left: small ? 40 : 46, right: view.width - (right ? 50 : 14), top: 10, bottom: height - 24 }
  const x = scale(steps, [area.left + 4, area.right - 4])
  const places = Math.max(2, Math.floor((area.right - area.left) / (small ? 70 : 60)))
  const lines = () =>
    h(
      'g',
      null,
      leftAxis(chart, area),
      right && rightAxis(chart, area),
      stepTicks(steps, places).map((step) => h('text', { x: x(step), y: area.bottom + 17, class: 'tick middle' }, step)),
      series.map((one) => drawn(one, view.steps, { x, y: yScale(chart, area, one.right === true) })),
    )
  const svg = h(
    'svg',
    { width: view.width, height, viewBox: `0 0 ${view.width} ${height}`, 'aria-hidden': 'true' },
    memo(`chart ${key}`, `${view.version} ${view.width}`, lines),
    mark(view.selected, x, area, 'selected'),
    mark(view.hover, x, area, 'hover'),
  )
  const plot = h('div', slider(title, series, view, { x, steps }), svg)
  return h('figure', { key, class: small ? 'chart small' : 'chart' }, caption(title, series, view), plot)
}

function yScale(chart: StepChart, area: Area, right: boolean): Scale {
  return scale(yRange(chart, right), [area.bottom, area.top])
}

function yRange({ series, range, rightRange }: StepChart, right: boolean): Range {
  const own = series.filter((one) => (one.right === true) === right)
  return (right ? rightRange : range) ?? extent(own.flatMap(({ y, low = [] }) => [...y, ...low]))
}

/** Grid and labels. */
function leftAxis(chart: StepChart, area: Area): Child[] {
  const values = ticks(yRange(chart, false), chart.small ? 3 : 5)
  const y = yScale(chart, area, false)
  const format = chart.format ?? ((value: number) => number(value, decimals(values)))
  return values.flatMap((value) => [
    h('line', { x1: area.left, x2: area.right, y1: y(value), y2: y(value), class: value === 0 ? 'grid zero' : 'grid' }),
    h('text', { x: area.left - 7, y: y(value) + 4, class: 'tick end' }, format(value)),
  ])
}

function rightAxis(chart: StepChart, area: Area): Child[] {
  const y = yScale(chart, area, true)
  const format = chart.rightFormat ?? ((value: number) => number(value, 0))
  return ticks(yRange(chart, true), 5).map((value) =>
    h('text', { x: area.right + 7, y: y(value) + 4, class: 'tick' }, format(value)),
  )
}

function mark(step: number | null, x: Scale, { top, bottom }: Area, name: string): Child {
  return step !== null && h('line', { x1: x(step), x2: x(step), y1: top, y2: bottom, class: `mark ${name}` })
}

const DOTS_UP_TO = 40

function drawn(
  { kind = 'line', y: values, x: own, low, colour, width = 2, dash }: Series,
  steps: readonly number[],
  at: { x: Scale; y: Scale },
): Element_ {
  const xs = own ?? steps
  const points = (from: readonly (number | null)[]) =>
    from.flatMap((value, i) => (value === null || !Number.isFinite(value) ? [] : [[at.x(xs[i]!), at.y(value)] as const]))
  const path = (list: readonly (readonly [number, number])[]) =>
    list.length === 0 ? '' : `M${list.map((point) => point.join(' ')).join('L')}`
  if (kind === 'band')
    return h('path', { d: `${path([...points(values), ...points(low ?? []).reverse()])}Z`, fill: colour, class: 'band' })
  const all = points(values)
  const line = h('path', {
    d: path(all),
    fill: 'none',
    stroke: colour,
    'stroke-width': width,
    'stroke-dasharray': dash,
    class: 'line',
  })
  if (kind === 'points')
    return h(
      'g',
      null,
      line,
      all.map(([px, py]) => h('path', { d: diamond(px, py, 4.8), fill: colour })),
    )
  const dots = dash === undefined && values.length <= DOTS_UP_TO && width >= 2
  return h('g', null, line, dots && all.map(([cx, cy]) => h('circle', { cx, cy, r: 2.6, fill: colour })))
}
