// A chart as a still SVG: what a page shows that runs no scripts. Draws the few forms that figure.ts names, from the same data.

import type { Axis, Colour, Figure, Layout, Trace } from './figure'
import { type Area, axisScale, axisValues, type Scale } from './still-scale'
import { GRID } from './style'

const WIDTH = 820
/** Text on a bar's colour. */
const IN_BAR = { anchor: 'center', fill: '#ffffff' }

interface Panel {
  readonly x: Scale
  readonly y: Scale
  readonly xAxis: Axis
  readonly yAxis: Axis
  readonly area: Area
}

/** The SVG document of `figure`. */
export function stillImage(figure: Figure): string {
  const { data, layout } = figure
  const { l, r, t, b } = layout.margin
  const area = { left: l, top: t, width: WIDTH - l - r, height: layout.height - t - b }
  const parts: string[] = []
  const drawn = new Map<string, Panel>()
  for (const trace of data) {
    const key = `${trace.xaxis ?? 'x'} ${trace.yaxis ?? 'y'}`
    if (drawn.has(key)) continue
    const panel = createPanel(figure, key.split(' ') as [string, string], area)
    drawn.set(key, panel)
    parts.push(frame(panel))
  }
  for (const [i, trace] of data.entries()) {
    const panel = drawn.get(`${trace.xaxis ?? 'x'} ${trace.yaxis ?? 'y'}`)!
    parts.push(trace.type === 'bar' ? bars(trace, panel, groupPlace(data, trace, layout)) : scatter(trace, data[i - 1], panel))
  }
  for (const note of layout.annotations)
    parts.push(
      text(note.text, area.left + note.x * area.width, area.top + (1 - note.y) * area.height, {
        size: note.font?.size,
        anchor: note.xanchor,
      }),
    )
  parts.push(text(layout.title.text, 8, 22, { size: layout.title.font?.size ?? 15, weight: 500 }))
  if (layout.showlegend) parts.push(legend(data))
  const font = `font-family="system-ui,sans-serif" font-size="${layout.font.size}" fill="${layout.font.color}"`
  const size = `width="${WIDTH}" height="${layout.height}" viewBox="0 0 ${WIDTH} ${layout.height}"`
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} ${font}>${parts.join('')}</svg>`
}

function createPanel({ data, layout }: Figure, [xName, yName]: [string, string], area: Area): Panel {
  const axisOf = (name: string) => (layout[`${name[0]}axis${name.slice(1)}`] ?? {}) as Axis
  const [xAxis, yAxis] = [axisOf(xName), axisOf(yName)]
  // An axis laid over another has that one's place.
  const yPlaced = yAxis.overlaying ? ({ ...yAxis, domain: axisOf(yAxis.overlaying).domain ?? [0, 1] } as Axis) : yAxis
  const values = (direction: 'x' | 'y', name: string) =>
    data.filter((trace) => (trace[`${direction}axis`] ?? direction) === name).flatMap((trace) => axisValues(trace, direction))
  const x = axisScale(xAxis, values('x', xName), { direction: 'x', area })
  const y = axisScale(yPlaced, values('y', yName), { direction: 'y', area })
  return { x, y, xAxis, yAxis, area }
}

/** Grid, tick labels and axis titles. */
function frame({ x, y, xAxis, yAxis, area }: Panel): string {
  const right = yAxis.side === 'right'
  const parts: string[] = []
  for (const tick of y.ticks) {
    if (yAxis.showgrid !== false) parts.push(line(x.from, tick.at, x.to, tick.at))
    parts.push(text(tick.text, right ? x.to + 8 : x.from - 8, tick.at + 4, { anchor: right ? 'left' : 'right' }))
  }
  if (!right) {
    for (const tick of x.ticks) parts.push(text(tick.text, tick.at, y.from + 18, { anchor: 'center' }))
    parts.push(line(x.from, y.from, x.to, y.from))
    if (xAxis.title) parts.push(text(xAxis.title.text, (x.from + x.to) / 2, y.from + 38, { anchor: 'center' }))
    if (xAxis.zeroline) parts.push(line(x.at(0), y.from, x.at(0), y.to))
  }
  if (yAxis.title?.text) {
    const middle = (y.from + y.to) / 2
    const column = right ? area.left + area.width + 56 : area.left - 42
    parts.push(
      `<g transform="translate(${column} ${round(middle)}) rotate(-90)">${text(yAxis.title.text, 0, 0, { anchor: 'center' })}</g>`,
    )
  }
  return parts.join('')
}

function scatter(trace: Trace, before: Trace | undefined, { x, y }: Panel): string {
  const points = (of: Trace) =>
    of.x.flatMap((value, i) => (value === null || of.y[i] == null ? [] : [`${round(x.at(value))},${round(y.at(of.y[i]!))}`]))
  const own = points(trace)
  const parts: string[] = []
  if (trace.fill === 'tonexty' && before)
    parts.push(`<polygon points="${[...own, ...points(before).reverse()].join(' ')}" fill="${trace.fillcolor}"/>`)
  const { width = 2, color = '', dash } = trace.line ?? {}
  if (trace.mode?.includes('lines') && width > 0) {
    const dashes = dash ? ` stroke-dasharray="${dash === 'dot' ? '2 3' : '6 5'}"` : ''
    parts.push(
      `<polyline points="${own.join(' ')}" fill="none" stroke="${color}" stroke-width="${width}" stroke-linejoin="round"${dashes}/>`,
    )
  }
  if (trace.error_y) parts.push(errorBars(trace, { x, y }))
  if (trace.mode?.includes('markers')) parts.push(...own.map((point, i) => marker(trace, point, i)))
  if (trace.mode?.includes('text')) parts.push(...own.map((point, i) => label(trace, point, i)))
  return parts.join('')
}

function marker(trace: Trace, point: string, i: number): string {
  const [px, py] = point.split(',').map(Number) as [number, number]
  const radius = (trace.marker?.size ?? 6) / 2
  const fill = colourOf(trace, i)
  const outline = trace.marker?.line ? ` stroke="${trace.marker.line.color}" stroke-width="${trace.marker.line.width}"` : ''
  if (trace.marker?.symbol !== 'diamond') return `<circle cx="${px}" cy="${py}" r="${radius}" fill="${fill}"${outline}/>`
  const r = radius * 1.25
  return `<path d="M${round(px - r)} ${py}L${px} ${round(py - r)}L${round(px + r)} ${py}L${px} ${round(py + r)}Z" fill="${fill}"${outline}/>`
}

/** From the low to the high end of each value, with short lines across the ends. */
function errorBars({ x: xs, y: ys, error_y }: Trace, { x, y }: Pick<Panel, 'x' | 'y'>): string {
  const { array, arrayminus, color, thickness, width } = error_y!
  const paths = xs.map((value, i) => {
    const [px, score] = [round(x.at(value ?? 0)), Number(ys[i])]
    const [low, high] = [round(y.at(score - arrayminus[i]!)), round(y.at(score + array[i]!))]
    const across = (py: number) => `M${round(px - width)} ${py}H${round(px + width)}`
    return `M${px} ${low}V${high}${across(low)}${across(high)}`
  })
  return `<path d="${paths.join('')}" fill="none" stroke="${color}" stroke-width="${thickness}"/>`
}

function label(trace: Trace, point: string, i: number): string {
  const [px, py] = point.split(',').map(Number) as [number, number]
  const [row, column] = (trace.textposition?.[i] ?? 'middle right').split(' ') as [string, string]
  const gap = (trace.marker?.size ?? 6) / 2 + 3
  const anchor = { left: 'right', right: 'left' }[column] ?? 'center'
  const across = { left: -gap, right: gap }[column] ?? 0
  return text(trace.text?.[i] ?? '', px + across, py + ({ top: -gap - 2, bottom: gap + 11 }[row] ?? 4), { anchor })
}

/** Which of how many bars side by side this trace is. */
function groupPlace(data: readonly Trace[], trace: Trace, layout: Layout): { index: number; count: number } {
  if (layout.barmode !== 'group') return { index: 0, count: 1 }
  const all = data.filter(({ type }) => type === 'bar')
  return { index: all.indexOf(trace), count: all.length }
}

function bars(trace: Trace, { x, y }: Panel, { index, count }: { index: number; count: number }): string {
  const unit = Math.abs(x.at(1) - x.at(0)) || (x.to - x.from) / Math.max(1, x.ticks.length)
  const whole = (trace.width ?? 0.55) * (Number.isFinite(unit) ? unit : (x.to - x.from) / Math.max(1, x.ticks.length))
  const width = whole / count
  return trace.x
    .map((value, i) => {
      const base = trace.base?.[i] ?? 0
      const height = Number(trace.y[i])
      const left = x.at(value ?? 0) - whole / 2 + index * width
      const [from, to] = [y.at(base), y.at(base + height)]
      const rect = `<rect x="${round(left)}" y="${round(Math.min(from, to))}" width="${round(width)}" height="${round(Math.abs(to - from))}" fill="${colourOf(trace, i)}"/>`
      const above = trace.texttemplate
        ? text(height.toFixed(1), left + width / 2, Math.min(from, to) - 5, { anchor: 'center' })
        : ''
      const inside =
        trace.textposition === 'inside' ? text(trace.text?.[i] ?? '', left + width / 2, (from + to) / 2 + 4, IN_BAR) : ''
      return rect + above + inside
    })
    .join('')
}

function colourOf({ marker = {} }: Trace, i: number): Colour {
  const { color } = marker
  if (color === undefined || typeof color === 'string') return color ?? 'currentColor'
  const value = color[i]!
  if (typeof value === 'string') return value
  const { cmin = 0, cmax = 1, colorscale = [] } = marker
  return scaleColour(colorscale, (value - cmin) / (cmax - cmin))
}

/** The colour at `share` between the stops of a scale; stops are #rrggbb. */
function scaleColour(stops: readonly (readonly [number, string])[], share: number): Colour {
  const upper = Math.max(
    1,
    stops.findIndex(([at]) => at >= share),
  )
  const [low, high] = [stops[upper - 1], stops[upper]]
  if (!low || !high) return '#888888'
  const mix = Math.min(1, Math.max(0, (share - low[0]) / (high[0] - low[0])))
  const channel = (text: string, i: number) => Number.parseInt(text.slice(1 + 2 * i, 3 + 2 * i), 16)
  const mixed = [0, 1, 2].map((i) => Math.round(channel(low[1], i) * (1 - mix) + channel(high[1], i) * mix))
  return `rgb(${mixed.join(',')})`
}

function legend(data: readonly Trace[]): string {
  const entries = data.filter((trace) => trace.showlegend !== false)
  let right = WIDTH - 20
  return entries
    .reverse()
    .map((trace) => {
      right -= plain(trace.name ?? '').length * 7 + 28
      const name = text(trace.name ?? '', right + 19, 45)
      if (trace.mode === 'markers') return `${marker(trace, `${round(right + 7)},41`, 0)}${name}`
      const colour = trace.fill ? trace.fillcolor : (trace.line?.color ?? colourOf(trace, 0))
      return `<rect x="${round(right)}" y="37" width="14" height="${trace.fill || trace.type === 'bar' ? 9 : 3}" fill="${colour}"/>${name}`
    })
    .join('')
}

function text(
  content: string,
  x: number,
  y: number,
  style: { size?: number; anchor?: string; weight?: number; fill?: string } = {},
): string {
  const anchor = { center: ' text-anchor="middle"', right: ' text-anchor="end"' }[style.anchor ?? ''] ?? ''
  const size = style.size ? ` font-size="${style.size}"` : ''
  const fill = style.fill ? ` fill="${style.fill}"` : ''
  const weight = style.weight ? ` font-weight="${style.weight}"` : ''
  return `<text x="${round(x)}" y="${round(y)}"${anchor}${size}${weight}${fill}>${coloured(content)}</text>`
}

/** Parts that plotly would colour keep their colour. */
function coloured(content: string): string {
  return content
    .split(/(<span style="color:[^"]+">.*?<\/span>)/)
    .map((part) => {
      const colour = /^<span style="color:([^"]+)">/.exec(part)?.[1]
      const text = escapeXml(plain(part))
      return colour ? `<tspan fill="${escapeXml(colour)}">${text}</tspan>` : text
    })
    .join('')
}

function line(x1: number, y1: number, x2: number, y2: number): string {
  return `<line x1="${round(x1)}" y1="${round(y1)}" x2="${round(x2)}" y2="${round(y2)}" stroke="${GRID}"/>`
}

/** plotly's texts hold a little HTML: tags go, entities become characters. */
function plain(content: string): string {
  return content
    .replace(/<br>/g, ' ')
    .replace(/<[^>]*>/g, '')
    .replace(/&#(\d+);/g, (_, code) => String.fromCodePoint(Number(code)))
}

function escapeXml(content: string): string {
  return content.replace(/[&<>]/g, (char) => `&#${char.charCodeAt(0)};`).replace(/[\x00-\x08\x0b\x0c\x0e-\x1f]/g, '')
}

function round(value: number): number {
  return Math.round(value * 10) / 10
}
