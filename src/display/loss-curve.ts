// The loss of a pretraining run over its steps, on a logarithmic axis: it falls by two powers of ten.

import { Figure, type Trace } from './figure'
import { axis, BLUE, baseLayout, ORANGE, stepAxis } from './style'

export interface LossPoint {
  readonly step: number
  readonly loss: number
  readonly heldOutLoss?: number
}

/** Thousands of points say no more than this many. */
const POINTS = 600
const TICKS = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10]

/** Training loss as a line, each point the mean of the steps it stands for; held-out loss as diamonds. */
export function lossCurve(points: readonly LossPoint[], title = 'Pretraining loss'): Figure {
  const layout = baseLayout(title, 360)
  const line = thin(points)
  const held = points.filter(({ heldOutLoss }) => heldOutLoss !== undefined)
  const logs = [...line.map(({ loss }) => loss), ...held.map(({ heldOutLoss }) => heldOutLoss!)].map(Math.log10)
  layout.showlegend = true
  layout.xaxis = stepAxis(points.map(({ step }) => step))
  const range: [number, number] = logs.length === 0 ? [-1, 1] : [Math.min(...logs) - 0.1, Math.max(...logs) + 0.1]
  const ticks = ticksWithin(range)
  layout.yaxis = axis('nats a token', { tickvals: ticks.map(Math.log10), ticktext: ticks.map(String), range, zeroline: false })
  const common = { type: 'scatter', hovertemplate: '%{text}' } as const
  const training: Trace = {
    ...common,
    name: 'training',
    mode: line.length > 40 ? 'lines' : 'lines+markers', // one update is a point
    x: line.map(({ step }) => step),
    y: line.map(({ loss }) => Math.log10(loss)),
    text: line.map(({ loss }) => loss.toFixed(4)),
    line: { color: BLUE, width: 2 },
  }
  const measured: Trace = {
    ...common,
    name: 'held-out documents',
    mode: 'markers',
    x: held.map(({ step }) => step),
    y: held.map(({ heldOutLoss }) => Math.log10(heldOutLoss!)),
    text: held.map(({ heldOutLoss }) => heldOutLoss!.toFixed(4)),
    marker: { color: ORANGE, size: 7, symbol: 'diamond' },
  }
  const last = points.at(-1)
  const summary = last ? `${title}: ${last.loss.toFixed(4)} after ${last.step} steps` : `${title}: no step yet`
  return new Figure(held.length > 0 ? [training, measured] : [training], layout, summary)
}

/** Round values; where there are not two in the range, its own thirds. */
function ticksWithin([low, high]: readonly [number, number]): number[] {
  const round = TICKS.filter((loss) => Math.log10(loss) >= low && Math.log10(loss) <= high)
  if (round.length >= 2) return round
  return [1, 3, 5].map((sixth) => Number((10 ** (low + (sixth / 6) * (high - low))).toPrecision(3)))
}

/** At most POINTS of them, each the mean of its neighbours. */
function thin(points: readonly LossPoint[]): { step: number; loss: number }[] {
  const size = Math.max(1, Math.ceil(points.length / POINTS))
  return Array.from({ length: Math.ceil(points.length / size) }, (_, i) => {
    const own = points.slice(i * size, (i + 1) * size)
    return { step: own.at(-1)!.step, loss: own.reduce((sum, { loss }) => sum + loss, 0) / own.length }
  })
}
