// The colours of the charts under a notebook's cells (src/display/style.ts; a test holds the two together).

export const BLUE = '#2f86c9'
export const ORANGE = '#dd8a1c'
export const RED = '#cf5a36'
export const GREEN = '#2a9d76'
export const GREY = '#8a94a0'

/** Bad to good: red, grey, blue; for rewards and advantages. */
export const SCALE: readonly (readonly [number, string])[] = [
  [0, '#c4471f'],
  [0.25, '#e09a7d'],
  [0.5, '#b9c0c7'],
  [0.75, '#7db1dc'],
  [1, '#1f6fb2'],
]

/** Shades of the scale: tiles of one shade are one path. */
export const SHADES = 21

/** The shade at a share from 0, bad, to 1, good. */
export function shadeOf(share: number): number {
  return Math.round(Math.min(1, Math.max(0, share)) * (SHADES - 1))
}

export function shadeColour(shade: number): string {
  const share = shade / (SHADES - 1)
  const upper = Math.max(
    1,
    SCALE.findIndex(([at]) => at >= share),
  )
  const [low, high] = [SCALE[upper - 1]!, SCALE[upper]!]
  const mix = (share - low[0]) / (high[0] - low[0])
  const channel = (text: string, i: number) => Number.parseInt(text.slice(1 + 2 * i, 3 + 2 * i), 16)
  return `rgb(${[0, 1, 2].map((i) => Math.round(channel(low[1], i) * (1 - mix) + channel(high[1], i) * mix)).join(',')})`
}

/** The colour of a reward between the lowest and the highest of its step. */
export function rewardColour(value: number, [low, high]: readonly [number, number]): string {
  return shadeColour(shadeOf(high > low ? (value - low) / (high - low) : 0.5))
}
