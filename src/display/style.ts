// The look of all charts: a few colours that differ for the colour-blind too and read on white and on black.

import type { Annotation, Axis, Layout } from './figure'

export const BLUE = '#2f86c9'
export const ORANGE = '#dd8a1c'
export const RED = '#cf5a36'
export const GREEN = '#2a9d76'
export const GREY = '#8a94a0'
export const TEXT = '#7b8591'
export const GRID = 'rgba(128,136,144,0.2)'
/** Lines or parts of one chart, in this order. */
export const SERIES: readonly string[] = [BLUE, ORANGE, GREEN, RED, '#8d6bb8', GREY]
/** Blue at a given opacity, for bands. */
export const bandOf = (opacity: number) => `rgba(47,134,201,${opacity})`

/** Bad to good: red, grey, blue. Used for rewards and for advantages, so that blue is always the better rollout. */
export const SCALE: readonly (readonly [number, string])[] = [
  [0, '#c4471f'],
  [0.25, '#e09a7d'],
  [0.5, '#b9c0c7'],
  [0.75, '#7db1dc'],
  [1, '#1f6fb2'],
]

/** The layout that all charts start from. */
export function baseLayout(title: string, height: number): Layout {
  return {
    title: { text: title, x: 0.005, xanchor: 'left', y: 0.97, yanchor: 'top', font: { size: 15 } },
    height,
    autosize: true,
    margin: { l: 56, r: 24, t: 56, b: 46 },
    font: { size: 12, color: TEXT },
    paper_bgcolor: 'rgba(0,0,0,0)',
    plot_bgcolor: 'rgba(0,0,0,0)',
    showlegend: false,
    legend: { orientation: 'h', x: 1, xanchor: 'right', y: 1.02, yanchor: 'bottom' },
    uirevision: title,
    annotations: [],
  }
}

/** An axis in the house style; `more` adds or replaces. */
export function axis(title: string, more: Partial<Axis> = {}): Axis {
  return { title: { text: title, standoff: 8 }, gridcolor: GRID, zerolinecolor: GRID, linecolor: GRID, automargin: true, ...more }
}

/** The x axis of steps: whole numbers only, at most about `ticks` of them. */
export function stepAxis(steps: readonly number[], more: Partial<Axis> = {}, ticks = 12): Axis {
  const first = Math.min(1, ...steps)
  const last = Math.max(1, ...steps)
  const pad = Math.max(0.25, (last - first) * 0.02)
  const every = [1, 2, 5, 10, 20, 25, 50, 100].find((step) => (last - first) / step <= ticks) ?? Math.ceil((last - first) / ticks)
  return axis('step', { range: [first - pad, last + pad], dtick: every, tick0: 0, showgrid: false, zeroline: false, ...more })
}

/** A panel's title, above its upper left corner; `x`, `y` in shares of the plotting area. */
export function panelHeading(text: string, x: number, y: number): Annotation {
  const place = { xref: 'paper', yref: 'paper', xanchor: 'left', yanchor: 'bottom' } as const
  return { text, x, y: y + 0.02, ...place, showarrow: false, font: { size: 12 } }
}

/** Where each of `count` panels side by side begins and ends, in shares of the width. */
export function panelPlaces(count: number): [number, number][] {
  const gap = 0.05
  const width = (1 - gap * (count - 1)) / count
  return Array.from({ length: count }, (_, i) => [i * (width + gap), i * (width + gap) + width])
}
