// A curve the size of a word.

import { type Element_, h } from './dom.js'
import { extent, type Range, scale } from './scale.js'

interface Look {
  readonly colour: string
  readonly width?: number
  readonly height?: number
  readonly range?: Range
}

export function sparkline(values: readonly number[], { width = 92, height = 24, colour, range }: Look): Element_ {
  const frame = { width, height, viewBox: `0 0 ${width} ${height}`, class: 'spark', 'aria-hidden': 'true' }
  if (values.length < 2) return h('svg', frame)
  const x = scale([0, values.length - 1], [2, width - 3])
  const y = scale(range ?? extent(values), [height - 3, 3])
  const d = `M${values.map((value, i) => `${x(i)} ${y(value)}`).join('L')}`
  return h(
    'svg',
    frame,
    h('path', { d, fill: 'none', stroke: colour, 'stroke-width': 1.6, class: 'line' }),
    h('circle', { cx: x(values.length - 1), cy: y(values.at(-1)!), r: 2.2, fill: colour }),
  )
}
