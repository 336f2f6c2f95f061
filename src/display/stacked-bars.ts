// What a whole is made of: a bar a row, its parts on top of each other.

import { OptionError } from '../errors'
import { Figure, type Trace } from './figure'
import { axis, baseLayout, SERIES } from './style'

export interface Stack {
  readonly label: string
  /** The parts by name, as shares of 1, the lowest first. */
  readonly parts: Readonly<Record<string, number>>
}

/** One bar a row, in percent; a part has one colour in all rows, and its number in it where there is room. @throws OptionError */
export function stackedBars(rows: readonly Stack[], { title = 'Shares' }: { title?: string } = {}): Figure {
  const names = [...new Set(rows.flatMap(({ parts }) => Object.keys(parts)))]
  if (names.length === 0) throw new OptionError('stackedBars needs at least one row with parts; there is none')
  const layout = baseLayout(title, 360)
  layout.showlegend = true
  layout.barmode = 'overlay' // each part is given its base: the same picture with and without plotly
  layout.bargap = 0.4
  layout.xaxis = { type: 'category', showgrid: false, automargin: true }
  layout.yaxis = axis('', { range: [0, 104], dtick: 25, ticksuffix: ' %' })
  const share = (row: Stack, name: string) => 100 * (row.parts[name] ?? 0)
  const below = (row: Stack, index: number) => names.slice(0, index).reduce((sum, name) => sum + share(row, name), 0)
  const data = names.map(
    (name, i): Trace => ({
      type: 'bar',
      name,
      x: rows.map(({ label }) => label),
      y: rows.map((row) => share(row, name)),
      base: rows.map((row) => below(row, i)),
      marker: { color: SERIES[i % SERIES.length]! },
      text: rows.map((row) => (share(row, name) >= 5 ? `${Math.round(share(row, name))} %` : '')),
      textposition: 'inside',
      insidetextanchor: 'middle',
      insidetextfont: { color: '#ffffff' },
      hovertemplate: `%{x}, ${name}: %{y:.1f} %<extra></extra>`,
    }),
  )
  const told = rows.map((row) => `${row.label}: ${names.map((name) => `${name} ${Math.round(share(row, name))} %`).join(', ')}`)
  return new Figure(data, layout, `${title}: ${told.join('; ')}`)
}
