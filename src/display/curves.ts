// Lines over steps, to compare: several runs in one panel, or several measures of one run, panel by panel.

import { OptionError } from '../errors'
import { Figure, type Layout, type Trace } from './figure'
import { axis, baseLayout, panelHeading, panelPlaces, SERIES, stepAxis } from './style'

export interface Curve {
  readonly name: string
  /** One value a step, from step 1; null leaves a gap. */
  readonly y: readonly (number | null)[]
}

export interface CurvesOptions {
  readonly title?: string
  /** Written behind each number; with '%' the axis goes from 0 to 100. */
  readonly unit?: string
  /** Each point is the mean of so many steps up to it: single steps jump, since each asks other questions. Default 1. */
  readonly smooth?: number
}

/** Lines in one panel, or panels by heading: those stand side by side, with the same axis, and a name has one colour in all of them. */
export type CurvePanels = readonly Curve[] | Readonly<Record<string, readonly Curve[]>>

/** @throws OptionError when there is no line, or when there are more panels than fit */
export function curves(given: CurvePanels, { title = 'Over steps', unit = '', smooth = 1 }: CurvesOptions = {}): Figure {
  const panels = Array.isArray(given) ? ([['', given]] as const) : Object.entries(given as Record<string, readonly Curve[]>)
  if (panels.length > 4) throw new OptionError(`curves draws at most 4 panels; these are ${panels.length}`)
  const names = [...new Set(panels.flatMap(([, lines]) => lines.map(({ name }) => name)))]
  if (names.length === 0) throw new OptionError('curves needs at least one line; the list is empty')
  const smoothed = panels.map(([heading, lines]) => ({
    heading,
    lines: lines.map((line) => ({ ...line, y: runningMean(line.y, smooth) })),
  }))
  const layout = baseLayout(title, panels.length > 1 ? 370 : 330)
  layout.showlegend = names.length > 1
  layout.hovermode = 'closest'
  if (panels.length > 1) {
    layout.margin.t = 86 // headings below the legend
    layout.legend['y'] = 1.12
  }
  const values = smoothed.flatMap(({ lines }) => lines.flatMap(({ y }) => y)).filter(isKnown)
  const data = smoothed.flatMap((panel, i) => {
    place(layout, { heading: panel.heading, index: i, count: panels.length, values, unit, steps: longest(smoothed) })
    return panel.lines.map((line) => trace(line, { index: i, names, unit, drawn: firstPanelOf(line.name, smoothed) === i }))
  })
  return new Figure(data, layout, summary(title, smoothed, unit))
}

interface Panel {
  readonly heading: string
  readonly lines: readonly Curve[]
}

/** The mean of the last `width` values at each place; gaps stay gaps and count for nothing. */
export function runningMean(values: readonly (number | null)[], width: number): (number | null)[] {
  return values.map((value, i) => {
    if (value === null) return null
    const near = values.slice(Math.max(0, i - width + 1), i + 1).filter(isKnown)
    return near.reduce((sum, one) => sum + one, 0) / near.length
  })
}

function isKnown(value: number | null): value is number {
  return value !== null
}

function place(
  layout: Layout,
  panel: { heading: string; index: number; count: number; values: readonly number[]; unit: string; steps: number[] },
): void {
  const { heading, index, count, values, unit, steps } = panel
  const suffix = suffixOf(index)
  const domain = panelPlaces(count)[index]!
  const ticksuffix = unit === '' ? '' : ` ${unit}`
  const range = unit === '%' ? { range: [0, 104] as const, dtick: 25 } : { range: reach(values) }
  layout[`xaxis${suffix}`] = stepAxis(steps, { domain, anchor: `y${suffix}` }, Math.round(12 / count))
  layout[`yaxis${suffix}`] = axis('', { ...range, ticksuffix, anchor: `x${suffix}`, showticklabels: index === 0 })
  if (heading !== '') layout.annotations.push(panelHeading(heading, domain[0], 1))
}

function trace(line: Curve, at: { index: number; names: readonly string[]; unit: string; drawn: boolean }): Trace {
  const { index, names, unit, drawn } = at
  const color = SERIES[names.indexOf(line.name) % SERIES.length]!
  const suffix = suffixOf(index)
  const short = line.y.length <= 20
  return {
    type: 'scatter',
    mode: short ? 'lines+markers' : 'lines',
    name: line.name,
    x: line.y.map((_, i) => i + 1),
    y: line.y,
    line: { color, width: 2.25 },
    marker: { size: 5, color },
    showlegend: drawn,
    xaxis: `x${suffix}`,
    yaxis: `y${suffix}`,
    hovertemplate: `step %{x}: %{y:.3~g}${unit === '' ? '' : ` ${unit}`}`,
  }
}

function suffixOf(index: number): '' | '2' | '3' | '4' {
  return (['', '2', '3', '4'] as const)[index]!
}

function longest(panels: readonly Panel[]): number[] {
  const length = Math.max(...panels.flatMap(({ lines }) => lines.map(({ y }) => y.length)))
  return Array.from({ length }, (_, i) => i + 1)
}

function firstPanelOf(name: string, panels: readonly Panel[]): number {
  return panels.findIndex(({ lines }) => lines.some((line) => line.name === name))
}

/** Room above and below; from zero where the values are not far from it. */
function reach(values: readonly number[]): [number, number] {
  const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)]
  const pad = (high - low) * 0.06 || 1
  return [low < 0 ? low - pad : 0, high + pad]
}

function summary(title: string, panels: readonly Panel[], unit: string): string {
  const told = ({ name, y }: Curve) => {
    const known = y.filter(isKnown)
    const ends = [known[0], known.at(-1)].map((value) => (value === undefined ? '–' : Number(value.toPrecision(3))))
    return `${name} ${ends.join(' → ')}${unit === '' ? '' : ` ${unit}`}`
  }
  const parts = panels.map(({ heading, lines }) => `${heading === '' ? '' : `${heading}: `}${lines.map(told).join(', ')}`)
  return `${title}: ${parts.join('; ')}`
}
