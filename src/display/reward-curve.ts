// The first chart to look at: does the reward rise, how far do rollouts of a group differ, what does validation say.

import type { StepRecord } from '../protocol'
import { Figure, type Trace } from './figure'
import { axis, BLUE, bandOf, baseLayout, GREEN, GREY, ORANGE, stepAxis } from './style'

export interface ValidationPoint {
  /** Updates made before this validation; 0 = before training. */
  readonly step: number
  /** Percent. */
  readonly score: number
}

/** Records alone, or a training run that knows its validations too. */
export type RunRecords =
  | readonly StepRecord[]
  | { readonly records: readonly StepRecord[]; readonly validation?: readonly ValidationPoint[] }

export interface RewardCurveOptions {
  readonly title?: string
  /** A reward to reach, drawn as a line. */
  readonly target?: number
}

/** Mean reward of each step with the spread within groups as a band, the best and worst rollout, and validation on its own axis. */
export function rewardCurve(run: RunRecords, { title = 'Reward', target }: RewardCurveOptions = {}): Figure {
  const { records, validation } = splitRun(run)
  const steps = records.map(({ step }) => step)
  const data = [...spread(records, steps), mean(records, steps), ...targetLine(steps, target), ...validationLine(validation)]
  const layout = baseLayout(title, 360)
  layout.showlegend = true
  layout.hovermode = 'x unified'
  layout.margin.r = validation.length > 0 ? 62 : 24
  layout.xaxis = stepAxis([...steps, ...validation.map(({ step }) => step)])
  layout.yaxis = axis('reward', steps.length === 0 ? { range: [0, 1] } : {})
  if (validation.length > 0)
    layout.yaxis2 = axis('validation', {
      overlaying: 'y',
      side: 'right',
      range: [0, 100],
      dtick: 20,
      ticksuffix: ' %',
      showgrid: false,
      zeroline: false,
    })
  return new Figure(data, layout, summary(records, validation))
}

/** The records and validations of either form; without validations, those that the records carry. */
export function splitRun(run: RunRecords): { records: readonly StepRecord[]; validation: readonly ValidationPoint[] } {
  const records = 'records' in run ? run.records : run
  const carried = records.flatMap(({ step, validation_score: score }) => (score === null ? [] : [{ step: step - 1, score }]))
  const given = 'records' in run ? run.validation : undefined
  return { records, validation: given ?? carried }
}

function spread(records: readonly StepRecord[], steps: readonly number[]): Trace[] {
  const common = { type: 'scatter', mode: 'lines', x: steps } as const
  const edge = { color: GREY, width: 1, dash: 'dot' } as const
  const none = { width: 0, color: bandOf(0) }
  return [
    { ...common, name: 'best and worst rollout', y: records.map((r) => r.reward_max), line: edge, hovertemplate: '%{y:.2f}' },
    {
      ...common,
      name: 'worst rollout',
      y: records.map((r) => r.reward_min),
      line: edge,
      showlegend: false,
      hovertemplate: '%{y:.2f}',
    },
    {
      ...common,
      name: 'upper',
      y: records.map((r) => Math.min(r.reward_max, r.reward + r.reward_std)),
      line: none,
      showlegend: false,
      hoverinfo: 'skip',
    },
    {
      ...common,
      name: 'spread in a group (±1 std)',
      y: records.map((r) => Math.max(r.reward_min, r.reward - r.reward_std)),
      line: none,
      fill: 'tonexty',
      fillcolor: bandOf(0.18),
      hoverinfo: 'skip',
    },
  ]
}

function mean(records: readonly StepRecord[], steps: readonly number[]): Trace {
  const mode = records.length > 40 ? 'lines' : 'lines+markers'
  const y = records.map(({ reward }) => reward)
  const line = { color: BLUE, width: 2.5 }
  return {
    type: 'scatter',
    mode,
    name: 'mean reward',
    x: steps,
    y,
    line,
    marker: { size: 6, color: BLUE },
    hovertemplate: '%{y:.3f}',
  }
}

function targetLine(steps: readonly number[], target: number | undefined): Trace[] {
  if (target === undefined || steps.length === 0) return []
  const line = { color: GREEN, width: 1.5, dash: 'dash' } as const
  return [
    {
      type: 'scatter',
      mode: 'lines',
      name: `target ${target}`,
      x: [steps[0]!, steps.at(-1)!],
      y: [target, target],
      line,
      hoverinfo: 'skip',
    },
  ]
}

function validationLine(validation: readonly ValidationPoint[]): Trace[] {
  if (validation.length === 0) return []
  return [
    {
      type: 'scatter',
      mode: 'lines+markers',
      name: 'validation',
      x: validation.map(({ step }) => step),
      y: validation.map(({ score }) => score),
      yaxis: 'y2',
      line: { color: ORANGE, width: 2 },
      marker: { size: 9, symbol: 'diamond', color: ORANGE },
      hovertemplate: '%{y:.1f} %',
    },
  ]
}

function summary(records: readonly StepRecord[], validation: readonly ValidationPoint[]): string {
  const [first, last] = [records[0], records.at(-1)]
  if (!first || !last) return 'Reward: no step yet'
  const [before, after] = [validation[0], validation.at(-1)]
  const scores = before && after ? `; validation ${before.score.toFixed(1)} % → ${after.score.toFixed(1)} %` : ''
  if (records.length === 1) return `Reward of the first step: ${first.reward.toFixed(2)}${scores}`
  return `Reward over ${records.length} steps: ${first.reward.toFixed(2)} → ${last.reward.toFixed(2)}${scores}`
}
