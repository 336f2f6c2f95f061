// A chart as data: plotly's JSON in the few forms we use, and what a notebook shows of it.

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

/** One series: a line or points (`scatter`), or bars. */
export interface Trace {
  type: 'scatter' | 'bar'
  name?: string
  x: readonly Value[]
  y: readonly Value[]
  /** Bars: where each begins, and how wide it is in units of x. */
  base?: readonly number[]
  width?: number
  mode?: 'lines' | 'markers' | 'lines+markers'
  line?: { color?: Colour; width?: number; dash?: 'dot' | 'dash'; shape?: 'linear' }
  marker?: Marker
  fill?: 'tonexty'
  fillcolor?: Colour
  text?: readonly string[]
  hovertemplate?: string
  hoverinfo?: 'skip' | 'text'
  textposition?: 'outside' | 'inside' | 'none'
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

let renders = 0

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
    return {
      'application/vnd.plotly.v1+json': this.toJSON(),
      'text/html': this.html(),
      'text/plain': this.summary,
    }
  }

  /**
   * A still picture, and a script that puts the live chart in its place where it finds plotly.js: already loaded, or served by Jupyter
   * beside our kernel. A page that runs no scripts keeps the picture. A chart drawn again keeps its node, hence its zoom.
   */
  html(key = this.layout.title.text, { still = true }: { still?: boolean } = {}): string {
    const id = `arbor-chart-${++renders}-${Math.random().toString(36).slice(2, 8)}`
    const json = (value: unknown) => JSON.stringify(value).replace(/</g, '\\u003c')
    const picture = () => `data:image/svg+xml;base64,${Buffer.from(stillImage(this)).toString('base64')}`
    const image = still
      ? `<img style="max-width:100%" alt="${escapeHtml(this.summary)}" src="${picture()}">`
      : escapeHtml(this.summary)
    return `<div id="${id}">${image}</div><script>(${DRAW})(${json(id)}, ${json(key)}, ${json(this.toJSON())})</script>`
  }
}

/** Runs in the browser. */
const DRAW = `function (id, key, figure) {
  const charts = (window.arborCharts ??= {})
  const draw = () => {
    const host = document.getElementById(id)
    if (!host) return
    const node = (charts[key] ??= document.createElement('div'))
    host.replaceChildren(node)
    window.Plotly.react(node, figure.data, figure.layout, figure.config)
  }
  if (window.Plotly) return draw()
  const settings = document.getElementById('jupyter-config-data')
  if (!settings) return
  const script = document.createElement('script')
  script.src = JSON.parse(settings.textContent).baseUrl + 'kernelspecs/arbor-nb/plotly-basic.min.js'
  script.onload = draw
  document.head.append(script)
}`
