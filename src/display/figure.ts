// A chart as data: plotly's JSON in the few forms we use, and what a notebook shows of it.

import { randomUUID } from 'node:crypto'
import type { LabelPlace } from './label-places'
import { DISPLAY, type Displayable, escapeHtml, type MimeBundle } from './mime'
import { stillImage } from './still'

export type Colour = string
export type Value = number | string | null

interface Marker {
  color?: Colour | readonly number[] | readonly Colour[]
  colorscale?: readonly (readonly [number, string])[]
  cmin?: number
  cmax?: number
  size?: number
  symbol?: 'circle' | 'diamond'
  showscale?: boolean
  line?: { width: number; color?: Colour }
}

interface ErrorBars {
  type: 'data'
  symmetric: false
  array: readonly number[]
  arrayminus: readonly number[]
  color: Colour
  thickness: number
  width: number
}

/** One series: a line or points (`scatter`), or bars. */
export interface Trace {
  type: 'scatter' | 'bar'
  name?: string
  x: readonly Value[]
  y: readonly Value[]
  /** Bars: where each begins, and how wide it is in units of x. */
  base?: readonly number[]
  width?: number
  mode?: 'lines' | 'markers' | 'lines+markers' | 'markers+text'
  /** Points: how far the value may lie above and below. */
  error_y?: ErrorBars
  line?: { color?: Colour; width?: number; dash?: 'dot' | 'dash'; shape?: 'linear' }
  marker?: Marker
  fill?: 'tonexty'
  fillcolor?: Colour
  text?: readonly string[]
  hovertext?: readonly string[]
  hovertemplate?: string
  hoverinfo?: 'skip' | 'text'
  /** Bars: one place for all; points: a place each. */
  textposition?: 'outside' | 'inside' | 'none' | readonly LabelPlace[]
  insidetextanchor?: 'middle'
  insidetextfont?: { color: Colour }
  texttemplate?: string
  showlegend?: boolean
  cliponaxis?: boolean
  xaxis?: 'x' | 'x2' | 'x3' | 'x4'
  yaxis?: 'y' | 'y2' | 'y3' | 'y4'
}

export interface Axis {
  title?: { text: string; standoff?: number }
  range?: readonly [number, number]
  rangemode?: 'tozero'
  domain?: readonly [number, number]
  anchor?: string
  overlaying?: string
  side?: 'right' | 'left'
  dtick?: number
  tick0?: number
  nticks?: number
  tickvals?: readonly number[]
  ticktext?: readonly string[]
  tickformat?: string
  ticksuffix?: string
  showgrid?: boolean
  showticklabels?: boolean
  zeroline?: boolean
  gridcolor?: Colour
  zerolinecolor?: Colour
  linecolor?: Colour
  automargin?: boolean
  fixedrange?: boolean
  type?: 'category' | 'linear'
}

export interface Annotation {
  text: string
  x: number
  y: number
  xref: 'paper'
  yref: 'paper'
  xanchor?: 'left' | 'center' | 'right'
  yanchor?: 'bottom' | 'middle' | 'top'
  showarrow: false
  font?: { size?: number; color?: Colour }
}

export interface Layout {
  title: { text: string; font?: { size: number }; [place: string]: unknown }
  height: number
  margin: { l: number; r: number; t: number; b: number }
  font: { size: number; color: Colour }
  showlegend: boolean
  legend: Record<string, unknown>
  annotations: Annotation[]
  xaxis?: Axis
  xaxis2?: Axis
  xaxis3?: Axis
  xaxis4?: Axis
  yaxis?: Axis
  yaxis2?: Axis
  yaxis3?: Axis
  yaxis4?: Axis
  hovermode?: 'x unified' | 'closest'
  barmode?: 'group' | 'overlay'
  bargap?: number
  [more: string]: unknown
}

/** Our own type: `{ key, revision }` of a chart whose figure is the plotly JSON beside it. Drawn by kernels/jupyter/charts. */
export const CHART_MIME = 'application/vnd.arbor.plotly.v1+json'
export const PLOTLY_MIME = 'application/vnd.plotly.v1+json'

let revisions = 0

/** A chart. As the last expression of a cell it shows itself; `data` and `layout` are plotly's. */
export class Figure implements Displayable {
  readonly config = { displayModeBar: false, responsive: true }

  /** `summary` says in one line what the chart shows, for text-only places. */
  constructor(
    readonly data: readonly Trace[],
    readonly layout: Layout,
    readonly summary: string,
  ) {}

  toJSON(): { data: readonly Trace[]; layout: Layout; config: object } {
    return { data: this.data, layout: this.layout, config: this.config }
  }

  [DISPLAY](): MimeBundle {
    return this.bundle(randomUUID())
  }

  /** Everything a place may want that shows the chart, now or from a file. A chart of the same `key` shown before gives its zoom to this one. */
  bundle(key: string): MimeBundle {
    revisions++
    const svg = stillImage(this)
    const picture = `data:image/svg+xml;base64,${Buffer.from(svg).toString('base64')}`
    const image = `<img style="max-width:100%" alt="${escapeHtml(this.summary)}" src="${picture}">`
    return {
      [CHART_MIME]: { key, revision: revisions },
      [PLOTLY_MIME]: this.toJSON(),
      'text/html': this.html(key, `<div>${image}</div>`),
      'image/svg+xml': svg,
      'text/plain': this.summary,
    }
  }

  /** What is sent while the chart still changes: without the pictures, which are more than half of it. */
  liveBundle(key: string): MimeBundle {
    revisions++
    const room = `<div style="min-height:${this.layout.height}px">${escapeHtml(this.summary)}</div>`
    return { 'text/html': this.html(key, room), 'text/plain': this.summary }
  }

  /** `content`, and a script that puts the chart in its place where Jupyter serves kernels/jupyter/charts; elsewhere it stays. */
  private html(key: string, content: string): string {
    const chart = JSON.stringify({ key, revision: revisions, figure: this.toJSON() }).replace(/</g, '\\u003c')
    return `${content}<script>(${DRAW})(${chart})</script>`
  }
}

/** Runs in the browser. */
const DRAW = `function (chart) {
  const host = document.currentScript.previousElementSibling
  const draw = () => arborCharts.draw(host, chart)
  if (window.arborCharts) return draw()
  const settings = document.getElementById('jupyter-config-data')
  if (!settings) return
  const src = JSON.parse(settings.textContent).baseUrl + 'kernelspecs/arbor-nb/charts.js'
  document.head.append(Object.assign(document.createElement('script'), { src, onload: draw }))
}`
