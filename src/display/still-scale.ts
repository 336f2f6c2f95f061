// Axes of a still picture: where a value lies in pixels, and which values get a tick.

import type { Axis, Trace } from './figure'

/** Pixels of the plotting area on the page. */
export interface Area {
  readonly left: number
  readonly top: number
  readonly width: number
  readonly height: number
}

export interface Scale {
  /** Pixel of a value (a number, or a category's name). */
  at(value: number | string): number
  readonly ticks: readonly { at: number; text: string }[]
  readonly from: number
  readonly to: number
}

/** `direction` x runs to the right, y upward, both within the axis' domain of `area`. */
export function axisScale(
  axis: Axis,
  values: readonly (number | string | null)[],
  place: { direction: 'x' | 'y'; area: Area },
): Scale {
  const { direction, area } = place
  const [start, end] = axis.domain ?? [0, 1]
  const along = direction === 'x' ? area.width : area.height
  const pixel = (share: number) => (direction === 'x' ? area.left + along * share : area.top + along * (1 - share))
  const [from, to] = [pixel(start), pixel(end)]
  const categories = axis.type === 'category' ? [...new Set(values.map(String))] : null
  const [low, high] = categories ? [-0.5, categories.length - 0.5] : (axis.range ?? dataRange(values))
  const at = (value: number | string) => {
    const number = typeof value === 'number' ? value : (categories?.indexOf(value) ?? Number(value))
    return from + ((number - low) / (high - low)) * (to - from)
  }
  const ticks = categories
    ? categories.map((text) => ({ at: at(text), text }))
    : numberTicks(axis, low, high).map(({ value, text }) => ({ at: at(value), text }))
  return { at, ticks, from, to }
}

/** The values that a trace puts on an axis; bars reach from their base. */
export function axisValues(trace: Trace, direction: 'x' | 'y'): (number | string | null)[] {
  if (trace.type === 'scatter' || direction === 'x') return [...trace[direction]]
  return trace.y.flatMap((y, i) => {
    const base = trace.base?.[i] ?? 0
    return [base, base + Number(y)]
  })
}

function dataRange(values: readonly (number | string | null)[]): [number, number] {
  const numbers = values.filter((value): value is number => typeof value === 'number')
  if (numbers.length === 0) return [0, 1]
  const [low, high] = [Math.min(...numbers), Math.max(...numbers)]
  const pad = (high - low) * 0.06 || 1
  return [low - pad, high + pad]
}

function numberTicks(axis: Axis, low: number, high: number): { value: number; text: string }[] {
  if (axis.showticklabels === false) return []
  if (axis.tickvals) return axis.tickvals.map((value, i) => ({ value, text: axis.ticktext?.[i] ?? String(value) }))
  const [bottom, top] = low < high ? [low, high] : [high, low]
  const step = axis.dtick ?? niceStep((top - bottom) / 5)
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9))
  const ticks: { value: number; text: string }[] = []
  for (let n = Math.ceil(bottom / step - 1e-9); n * step <= top + 1e-9 * step; n++)
    ticks.push({ value: n * step, text: `${(n * step).toFixed(digits).replace('-', '−')}${axis.ticksuffix ?? ''}` })
  return ticks
}

/** 1, 2 or 5 times a power of ten, at least `rough`. */
function niceStep(rough: number): number {
  const power = 10 ** Math.floor(Math.log10(rough))
  return power * ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10)
}
