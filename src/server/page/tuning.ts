// A fine-tuning job: the loss of its updates, and the size of its steps.

import type { FineTuningStep } from '../../protocol'
import { type Child, h } from './dom.js'
import { number, short } from './format.js'
import { BLUE, ORANGE } from './palette.js'
import { state } from './state.js'
import { type StepChart, stepChart } from './step-chart.js'
import type { ChartView } from './step-view.js'

const GAP = 28

export function lossCharts(view: ChartView): Child[] {
  const { losses } = state
  if (losses.length === 0)
    return [h('p', { key: 'first', class: 'muted first', role: 'status' }, 'No update yet. The loss is drawn here as it comes.')]
  const values = losses.map(({ loss }) => loss)
  const format = (value: number) => number(value, 4)
  const loss: StepChart = {
    key: 'loss',
    title: 'Loss',
    height: 300,
    range: [0, Math.max(...values) * 1.08],
    series: [
      { name: 'each update, nats a token', colour: BLUE, width: 1.3, y: values, format },
      { name: 'smoothed', colour: ORANGE, width: 2.4, y: smoothed(values), format },
    ],
  }
  const half = { ...view, width: view.width >= 720 ? Math.floor((view.width - GAP) / 2) : view.width }
  const small = (key: string, title: string, of: (step: FineTuningStep) => number) => {
    const line = { name: title.toLowerCase(), colour: BLUE, y: losses.map(of), format: short }
    return stepChart({ key, title, small: true, height: 150, format: short, series: [line] }, half)
  }
  const pair = [
    small('gradient', 'Gradient norm', ({ grad_norm }) => grad_norm),
    small('rate', 'Learning rate', ({ learning_rate }) => learning_rate),
  ]
  return [stepChart(loss, view), h('div', { key: 'pair', class: 'pair' }, pair)]
}

/** Each value with what came before it, less and less. */
export function smoothed(values: readonly number[]): number[] {
  const keep = Math.min(0.95, Math.max(0.5, 1 - 30 / Math.max(1, values.length)))
  let mean = 0
  let weight = 0
  return values.map((value) => {
    mean = keep * mean + (1 - keep) * value
    weight = keep * weight + (1 - keep)
    return mean / weight
  })
}
