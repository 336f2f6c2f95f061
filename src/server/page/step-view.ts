// What a chart over steps says in words: its legend with the values of a step, and itself as a slider for pointer and keyboard.

import { type Element_, h, type Prop } from './dom.js'
import type { Range, Scale } from './scale.js'

/** What all charts of a job share. */
export interface ChartView {
  readonly width: number // pixels
  readonly steps: readonly number[]
  /** Changes when what is drawn does: pointer and keys move over lines that stay. */
  readonly version: string
  readonly hover: number | null
  readonly selected: number | null
  /** The same, at the moment of a key: keys may be faster than drawing. */
  readonly now: () => number | null
  readonly onHover: (step: number | null) => void
  readonly onSelect: (step: number) => void
}

export interface Series {
  readonly name: string
  readonly colour: string
  readonly y: readonly (number | null)[]
  /** Default: the chart's steps. */
  readonly x?: readonly number[]
  /** Of a band: from here up to y. */
  readonly low?: readonly (number | null)[]
  readonly kind?: 'line' | 'band' | 'points'
  /** On the right axis. */
  readonly right?: boolean
  readonly width?: number
  readonly dash?: string
  /** In the legend; without it no value stands there. */
  readonly format?: (value: number) => string
  /** Not in the legend. */
  readonly quiet?: boolean
}

/** The title, and what each line is, with its value at the step that is looked at. */
export function caption(title: string, series: readonly Series[], view: ChartView): Element_ {
  const step = view.hover ?? view.selected ?? view.steps.at(-1) ?? null
  const entries = series
    .filter(({ quiet }) => !quiet)
    .map((one) => {
      const value = step === null ? null : valueAt(one, view.steps, step)
      return h(
        'li',
        null,
        swatch(one),
        h('span', null, one.name),
        value !== null && one.format && h('b', null, one.format(value)),
      )
    })
  return h('figcaption', null, h('h3', null, title), h('ul', { class: 'legend' }, entries))
}

function swatch({ kind = 'line', colour, dash, width = 2 }: Series): Element_ {
  const shape =
    kind === 'band'
      ? h('rect', { x: 0, y: 1, width: 14, height: 8, rx: 1.5, fill: colour, class: 'band' })
      : kind === 'points'
        ? h('path', { d: diamond(7, 5, 4), fill: colour })
        : h('path', { d: 'M0 5H14', stroke: colour, 'stroke-width': Math.min(width, 2.5), 'stroke-dasharray': dash })
  return h('svg', { width: 14, height: 10, 'aria-hidden': 'true' }, shape)
}

/** The value at a step; of a series with gaps the last one up to it. */
export function valueAt({ x, y }: Pick<Series, 'x' | 'y'>, steps: readonly number[], step: number): number | null {
  const xs = x ?? steps
  for (let i = xs.length - 1; i >= 0; i--) if (xs[i]! <= step) return y[i] ?? null
  return null
}

/** Pointer and keys: looking at a step, and choosing one. */
export function slider(
  title: string,
  series: readonly Series[],
  view: ChartView,
  { x, steps: range }: { x: Scale; steps: Range },
): Record<string, Prop> {
  const { steps, selected } = view
  const now = selected ?? steps.at(-1) ?? 0
  const told = series.flatMap((one) => {
    const value = one.format && !one.quiet ? valueAt(one, steps, now) : null
    return value === null ? [] : [`${one.name} ${one.format!(value)}`]
  })
  const choose = (step: number | null) => step !== null && view.onSelect(step)
  return {
    class: 'plot',
    role: 'slider',
    tabindex: steps.length > 0 ? 0 : -1,
    'aria-label': `${title}, by step`,
    'aria-valuemin': steps[0] ?? 0,
    'aria-valuemax': steps.at(-1) ?? 0,
    'aria-valuenow': now,
    'aria-valuetext': `step ${now}: ${told.join(', ')}`,
    onpointermove: (event: PointerEvent) => view.onHover(pointedStep(event, steps, { x, range })),
    onpointerleave: () => view.onHover(null),
    onclick: (event: PointerEvent) => choose(pointedStep(event, steps, { x, range })),
    onkeydown: (event: KeyboardEvent) => {
      const step = keyedStep(event.key, steps, view.now() ?? now)
      if (step === null) return
      event.preventDefault()
      choose(step)
    },
  }
}

/** The step nearest to the pointer. */
export function pointedStep(
  event: PointerEvent,
  steps: readonly number[],
  { x, range: [first, last] }: { x: Scale; range: Range },
): number | null {
  const { left } = (event.currentTarget as Element).getBoundingClientRect()
  const share = (event.clientX - left - x(first)) / Math.max(1, x(last) - x(first))
  const wanted = first + share * (last - first)
  return steps.reduce<number | null>(
    (best, step) => (best === null || Math.abs(step - wanted) <= Math.abs(best - wanted) ? step : best),
    null,
  )
}

/** The step that a key leads to from `now`; null for other keys. */
export function keyedStep(key: string, steps: readonly number[], now: number): number | null {
  const far = steps.length
  const moves: Readonly<Record<string, number>> = {
    ArrowLeft: -1,
    ArrowDown: -1,
    ArrowRight: 1,
    ArrowUp: 1,
    PageDown: -10,
    PageUp: 10,
    Home: -far,
    End: far,
  }
  const by = moves[key]
  if (by === undefined || far === 0) return null
  const at = steps.indexOf(now)
  return steps[Math.min(far - 1, Math.max(0, (at < 0 ? far - 1 : at) + by))]!
}

export function diamond(x: number, y: number, r: number): string {
  return `M${x - r} ${y}L${x} ${y - r}L${x + r} ${y}L${x} ${y + r}Z`
}
