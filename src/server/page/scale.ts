// Numbers to places, and the round numbers at an axis.

export type Scale = (value: number) => number
export type Range = readonly [number, number]

/** From values to pixels, to a tenth of one. */
export function scale([low, high]: Range, [from, to]: Range): Scale {
  const factor = high === low ? 0 : (to - from) / (high - low)
  return (value) => Math.round((from + (value - low) * factor) * 10) / 10
}

/** Round numbers within a range, about `count` of them. */
export function ticks([low, high]: Range, count: number): number[] {
  const rough = (high - low) / Math.max(1, count)
  const power = 10 ** Math.floor(Math.log10(rough || 1))
  const step = ([1, 2, 2.5, 5, 10].find((one) => one * power >= rough * 0.999) ?? 10) * power
  const first = Math.ceil(low / step - 1e-9)
  const last = Math.floor(high / step + 1e-9)
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => Number(((first + i) * step).toPrecision(12)))
}

const STEP_TICKS = [1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000]

/** Steps are whole: at most about `count` ticks. */
export function stepTicks([first, last]: Range, count: number): number[] {
  const every = STEP_TICKS.find((step) => (last - first) / step <= count) ?? Math.ceil((last - first) / count)
  const from = Math.ceil(first / every)
  return Array.from({ length: Math.max(0, Math.floor(last / every) - from + 1) }, (_, i) => (from + i) * every)
}

/** From the lowest to the highest, with air around; never empty. */
export function extent(values: readonly (number | null)[]): [number, number] {
  let low = Number.POSITIVE_INFINITY
  let high = Number.NEGATIVE_INFINITY
  for (const value of values) {
    if (value === null || !Number.isFinite(value)) continue
    low = Math.min(low, value)
    high = Math.max(high, value)
  }
  if (low > high) return [0, 1]
  const air = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1
  return [low - air, high + air]
}

/** Decimals that tell these ticks apart. */
export function decimals(values: readonly number[]): number {
  return Math.min(6, Math.max(0, ...values.map((value) => (String(value).split('.')[1] ?? '').length)))
}
