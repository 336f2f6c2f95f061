// Before and after, side by side.

import { OptionError } from '../errors'
import { Figure, type Trace } from './figure'
import { axis, BLUE, baseLayout, GREY } from './style'

export interface BeforeAfter {
  readonly label: string
  readonly before: number
  readonly after: number
}

export interface CompareOptions {
  readonly title?: string
  /** Written behind each number; with '%' the axis ends at 100. */
  readonly unit?: string
  readonly names?: readonly [string, string]
}

/** Two bars a row. */
export function compareBars(rows: readonly BeforeAfter[], options: CompareOptions = {}): Figure {
  if (rows.length === 0) throw new OptionError('compareBars needs at least one row; the list is empty')
  const { title = 'Before and after', unit = '%', names = ['before', 'after'] } = options
  const suffix = unit === '' ? '' : ` ${unit}`
  const layout = baseLayout(title, 340)
  const values = rows.flatMap(({ before, after }) => [before, after])
  layout.showlegend = true
  layout.barmode = 'group'
  layout.bargap = 0.45
  layout.xaxis = { type: 'category', showgrid: false, automargin: true }
  layout.yaxis = axis('', {
    ticksuffix: suffix,
    range: [Math.min(0, ...values), unit === '%' && Math.max(...values) <= 100 ? 108 : Math.max(...values) * 1.15],
    ...(unit === '%' ? { dtick: 25 } : {}),
  })
  const bars = (name: string, y: number[], color: string): Trace => ({
    type: 'bar',
    name,
    x: rows.map(({ label }) => label),
    y,
    marker: { color },
    texttemplate: `%{y:.1f}${suffix}`,
    textposition: 'outside',
    hovertemplate: `%{x}, ${name}: %{y:.1f}${suffix}<extra></extra>`,
    cliponaxis: false,
  })
  const data = [
    bars(
      names[0],
      rows.map(({ before }) => before),
      GREY,
    ),
    bars(
      names[1],
      rows.map(({ after }) => after),
      BLUE,
    ),
  ]
  const told = rows.map(({ label, before, after }) => `${label} ${before.toFixed(1)}${suffix} → ${after.toFixed(1)}${suffix}`)
  return new Figure(data, layout, `${title}: ${told.join('; ')}`)
}
