// All steps at a glance: a tile for each rollout, best on top within its group, blue better and red worse than its siblings.

import type { StepRecord } from '../../protocol'
import { type Child, type Element_, h, memo } from './dom.js'
import { SHADES, shadeColour, shadeOf } from './palette.js'
import { type Range, type Scale, scale, stepTicks } from './scale.js'
import { type ChartView, pointedStep } from './step-view.js'

const MAX_STEPS = 120
const MIN_COLUMNS = 8
const HEIGHT = 190
const TOP = 6
const BOTTOM = HEIGHT - 24

/** A click turns to the step under the pointer. */
export function advantageMap(records: readonly StepRecord[], view: ChartView): Element_ {
  const shown = records.slice(-MAX_STEPS)
  const steps = shown.map(({ step }) => step)
  const first = steps[0] ?? 1
  const range: Range = [first - 0.5, Math.max(steps.at(-1) ?? 1, first + MIN_COLUMNS - 1) + 0.5]
  const x = scale(range, [8, view.width - 8])
  const frame = {
    width: view.width,
    height: HEIGHT,
    viewBox: `0 0 ${view.width} ${HEIGHT}`,
    role: 'img',
    'aria-label': sentence(shown),
  }
  const places = Math.max(2, Math.floor(view.width / 66))
  const svg = h(
    'svg',
    frame,
    memo('tiles', `${view.version} ${view.width}`, () => h('g', null, tiles(shown, x))),
    outline(view.selected, 'selected', { x, first }),
    outline(view.hover, 'hover', { x, first }),
    stepTicks([first, range[1] - 0.5], places).map((step) =>
      h('text', { x: x(step), y: HEIGHT - 7, class: 'tick middle' }, step),
    ),
  )
  const at = (event: PointerEvent) => pointedStep(event, steps, { x, range })
  const pointer = {
    class: 'plot',
    onpointermove: (event: PointerEvent) => view.onHover(at(event)),
    onpointerleave: () => view.onHover(null),
    onclick: (event: PointerEvent) => view.onSelect(at(event) ?? first),
  }
  const note = h(
    'ul',
    { class: 'legend' },
    h('li', null, h('span', null, 'every rollout, by step: blue better than its group, red worse')),
  )
  return h(
    'figure',
    { key: 'map', class: 'chart' },
    h('figcaption', null, h('h3', null, 'What was taught'), note),
    h('div', pointer, svg),
  )
}

function sentence(records: readonly StepRecord[]): string {
  return `Advantages of all rollouts in ${records.length} steps; blue is better than its group, red worse`
}

function outline(step: number | null, name: string, { x, first }: { x: Scale; first: number }): Child {
  if (step === null || step < first) return null
  const left = x(step - 0.5)
  return h('rect', { x: left, y: TOP - 3, width: x(step + 0.5) - left, height: BOTTOM - TOP + 5, rx: 2, class: `frame ${name}` })
}

/** The tiles of a step from the bottom up, a gap between groups. */
function column({ step, groups }: StepRecord) {
  let height = 0
  const own = groups.flatMap(({ advantages }) => {
    const sorted = [...advantages].sort((a, b) => a - b).map((advantage) => ({ advantage, base: height++ }))
    height += 0.6
    return sorted
  })
  return { step, own, height }
}

/** One path a shade: thousands of tiles are a score of elements. */
function tiles(records: readonly StepRecord[], x: Scale): Child[] {
  const columns = records.map(column)
  const y = scale([0, Math.max(1, ...columns.map(({ height }) => height))], [BOTTOM, TOP])
  const limit = Math.max(1e-9, ...columns.flatMap(({ own }) => own.map(({ advantage }) => Math.abs(advantage))))
  const shapes = Array.from({ length: SHADES }, () => '')
  for (const { step, own } of columns) {
    const left = x(step - 0.46)
    const width = Math.max(0.5, x(step + 0.46) - left).toFixed(1)
    for (const { advantage, base } of own) {
      const top = y(base + 0.92)
      shapes[shadeOf(0.5 + advantage / limit / 2)] +=
        `M${left} ${top}h${width}v${Math.max(0.5, y(base) - top).toFixed(1)}h-${width}z`
    }
  }
  return shapes.map((d, shade) => d !== '' && h('path', { key: `shade${shade}`, d, fill: shadeColour(shade) }))
}
