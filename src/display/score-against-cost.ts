// What each way to make a program better brings, and what it costs: scores with their intervals over a logarithmic axis.

import { OptionError } from '../errors'
import { type Axis, Figure, type Trace } from './figure'
import { type LabelPlace, spreadLabels } from './label-places'
import { escapeHtml } from './mime'
import { axis, baseLayout, GREY, SERIES } from './style'

/** One optimizer; scores in percent. */
export interface ScoredCost {
  readonly label: string
  readonly score: number
  /** The ends of the score's interval. */
  readonly low: number
  readonly high: number
  /** 0 stands at the left end of the axis: a logarithm has no place for it. */
  readonly cost: number
  /** Points of one kind share a colour and an entry in the legend. */
  readonly kind?: string
}

export interface ScoreAgainstCostOptions {
  readonly title?: string
  /** What the costs count. Default 'tokens'. */
  readonly unit?: string
}

/** Room for labels at either end, in powers of ten. */
const PAD = 0.25
const HEIGHT = 420

/**
 * A point a row: its score up, its cost to the right, its interval as a bar. A dotted line is what costs nothing.
 * @throws OptionError without rows, and for a cost that is no number from 0 on
 * @example plot.scoreAgainstCost([{ label: 'GEPA', score: 71, low: 64, high: 77, cost: 71_871, kind: 'prompt' }])
 */
export function scoreAgainstCost(rows: readonly ScoredCost[], options: ScoreAgainstCostOptions = {}): Figure {
  if (rows.length === 0) throw new OptionError('scoreAgainstCost needs at least one row; the list is empty')
  const { title = 'Score against cost', unit = 'tokens' } = options
  const place = costScale(rows)
  const [bottom, top] = scoreRange(rows)
  const layout = baseLayout(title, HEIGHT)
  layout.showlegend = rows.some(({ kind }) => kind !== undefined)
  layout.hovermode = 'closest'
  layout.xaxis = costAxis(unit, place)
  layout.yaxis = axis('score', { range: [bottom, top], ticksuffix: ' %', dtick: top - bottom > 55 ? 20 : 10, zeroline: false })
  const [left, right] = place.range
  const labels = spreadLabels(
    rows.map(({ label, score, low, high, cost }) => {
      const share = (value: number) => (value - bottom) / (top - bottom)
      return { label, x: (place.at(cost) - left) / (right - left), y: share(score), low: share(low), high: share(high) }
    }),
  )
  const points = kindsOf(rows).map((kind, i) =>
    pointsOf(kind, { rows, labels, unit, at: place.at, color: SERIES[i % SERIES.length]! }),
  )
  return new Figure([...baseline(rows, place.range), ...points], layout, summary(title, rows, unit))
}

interface CostScale {
  readonly range: readonly [number, number]
  /** Whether something costs nothing. */
  readonly zero: boolean
  /** The place of a cost: its logarithm. */
  at(cost: number): number
}

function costScale(rows: readonly ScoredCost[]): CostScale {
  for (const { label, cost } of rows)
    if (!(cost >= 0 && Number.isFinite(cost)))
      throw new OptionError(`The cost of '${label}' must be a number from 0 on, not ${cost}`)
  const logs = rows.filter(({ cost }) => cost > 0).map(({ cost }) => Math.log10(cost))
  if (logs.length === 0) logs.push(0)
  const zero = rows.some(({ cost }) => cost === 0)
  const nothing = Math.min(...logs) - 2 * PAD
  const left = zero ? nothing : Math.min(...logs)
  return {
    range: [left - PAD, Math.max(...logs) + PAD],
    zero,
    at: (cost) => (cost === 0 ? nothing : Math.log10(cost)),
  }
}

/** Ticks at 1, 2 and 5 times the powers of ten, and at nothing. */
function costAxis(unit: string, { range, zero, at }: CostScale): Axis {
  const [low, high] = [zero ? at(0) + PAD : range[0], range[1]]
  const ticks = Array.from({ length: Math.ceil(high) - Math.floor(low) + 1 }, (_, i) => 10 ** (Math.floor(low) + i))
    .flatMap((power) => [power, 2 * power, 5 * power])
    .filter((cost) => cost >= 1 && Math.log10(cost) >= low && Math.log10(cost) <= high)
  const all = zero ? [0, ...ticks] : ticks
  return axis(unit, { range, tickvals: all.map(at), ticktext: all.map(short), showgrid: false, zeroline: false })
}

function pointsOf(
  kind: string | undefined,
  how: {
    rows: readonly ScoredCost[]
    labels: readonly LabelPlace[]
    unit: string
    at: (cost: number) => number
    color: string
  },
): Trace {
  const { rows, labels, unit, at, color } = how
  const own = rows.flatMap((row, i) => (row.kind === kind ? [{ ...row, place: labels[i]! }] : []))
  return {
    type: 'scatter',
    mode: 'markers+text',
    ...(kind === undefined ? { showlegend: false } : { name: kind }),
    x: own.map(({ cost }) => at(cost)),
    y: own.map(({ score }) => score),
    error_y: {
      type: 'data',
      symmetric: false,
      array: own.map(({ score, high }) => high - score),
      arrayminus: own.map(({ score, low }) => score - low),
      color,
      thickness: 1.4,
      width: 4,
    },
    marker: { color, size: 10 },
    text: own.map(({ label }) => escapeHtml(label)),
    textposition: own.map(({ place }) => place),
    hovertext: own.map((row) =>
      escapeHtml(`${told(row)} (${percent(row.low)} to ${percent(row.high)}), ${short(row.cost)} ${unit}`),
    ),
    hoverinfo: 'text',
    cliponaxis: false,
  }
}

/** The best score that costs nothing, all along the axis. */
function baseline(rows: readonly ScoredCost[], [left, right]: readonly [number, number]): Trace[] {
  const free = rows.filter(({ cost }) => cost === 0).map(({ score }) => score)
  if (free.length === 0) return []
  const y = Math.max(...free)
  const line = { color: GREY, width: 1.2, dash: 'dot' } as const
  return [{ type: 'scatter', mode: 'lines', x: [left, right], y: [y, y], line, hoverinfo: 'skip', showlegend: false }]
}

function kindsOf(rows: readonly ScoredCost[]): (string | undefined)[] {
  return [...new Set(rows.map(({ kind }) => kind))]
}

/** Tens around the intervals, within 0 to 100, with room for a label above. */
function scoreRange(rows: readonly ScoredCost[]): [number, number] {
  const low = Math.min(...rows.map((row) => row.low))
  const high = Math.max(...rows.map((row) => row.high))
  return [Math.max(0, 10 * Math.floor((low - 5) / 10)), 10 * Math.ceil(high / 10) + 8]
}

function summary(title: string, rows: readonly ScoredCost[], unit: string): string {
  return `${title}: ${rows.map((row) => `${told(row)} for ${short(row.cost)} ${unit}`).join(', ')}`
}

const told = ({ label, score }: ScoredCost) => `${label} ${percent(score)}`
const percent = (value: number) => `${value.toFixed(1)} %`

/** 0, 812, 96.4 k, 1.2 M. */
function short(count: number): string {
  if (count < 1000) return String(Number(count.toPrecision(3)))
  const [value, unit] = count < 1e6 ? [count / 1e3, 'k'] : [count / 1e6, 'M']
  return `${Number(value.toFixed(1))} ${unit}`
}
