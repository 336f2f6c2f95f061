// What a GRPO job's step records look like: does it learn, is there a signal, what does it cost.

import type { JobSummary, StepRecord } from '../../protocol'
import type { Element_ } from './dom.js'
import { number } from './format.js'
import { BLUE, GREEN, GREY, ORANGE, RED } from './palette.js'
import { type StepChart, stepChart } from './step-chart.js'
import type { ChartView, Series } from './step-view.js'

const two = (value: number) => number(value, 2)
const percent = (value: number) => `${number(value, 0)} %`

/** Mean reward with the spread within groups, best and worst rollout, and validation on an axis of its own. */
export function rewardChart(records: readonly StepRecord[], checkpoints: JobSummary['checkpoints'], view: ChartView): Element_ {
  const of = (value: (record: StepRecord) => number) => records.map(value)
  const edge = { name: 'best and worst rollout', colour: GREY, width: 1, dash: '1 3' }
  const series: Series[] = [
    {
      name: 'spread in a group',
      colour: BLUE,
      kind: 'band',
      y: of((r) => Math.min(r.reward_max, r.reward + r.reward_std)),
      low: of((r) => Math.max(r.reward_min, r.reward - r.reward_std)),
    },
    { ...edge, y: of((r) => r.reward_max) },
    { ...edge, y: of((r) => r.reward_min), quiet: true },
    { name: 'mean reward', colour: BLUE, width: records.length > 300 ? 1.2 : 2.5, y: of((r) => r.reward), format: two },
    ...validation(records, checkpoints),
  ]
  return stepChart({ key: 'reward', title: 'Reward', height: 280, rightRange: [0, 100], rightFormat: percent, series }, view)
}

/** A step brings the score of the policy before its update; after the last step it stands with the checkpoint alone. */
function validation(records: readonly StepRecord[], checkpoints: JobSummary['checkpoints']): Series[] {
  const scores = new Map<number, number>()
  for (const { step, score } of checkpoints) if (score !== null) scores.set(step, score)
  for (const { step, validation_score: score } of records) if (score !== null) scores.set(step - 1, score)
  if (scores.size === 0) return []
  const x = [...scores.keys()].sort((a, b) => a - b)
  const y = x.map((step) => scores.get(step)!)
  return [{ x, y, name: 'validation', colour: ORANGE, kind: 'points', right: true, format: (value) => `${number(value, 1)} %` }]
}

interface Line {
  readonly name: string
  readonly colour: string
  readonly of: (record: StepRecord) => number | null
  readonly format: (value: number) => string
}

interface SmallChart extends Omit<StepChart, 'series'> {
  readonly lines: readonly Line[]
  /** Left out where no step has anything to show. */
  readonly optional?: boolean
}

const SMALL: readonly SmallChart[] = [
  {
    key: 'signal',
    title: 'Rollouts without a signal',
    range: [0, 100],
    format: percent,
    lines: [
      { name: 'no spread', colour: BLUE, of: (r) => 100 * r.frac_reward_zero_std, format: percent },
      { name: 'cut short', colour: ORANGE, of: (r) => 100 * r.truncated_share, format: percent },
    ],
  },
  { key: 'entropy', title: 'Entropy', lines: [{ name: 'nats a token', colour: BLUE, of: (r) => r.entropy, format: two }] },
  {
    key: 'length',
    title: 'Completion length',
    lines: [{ name: 'tokens, mean', colour: BLUE, of: (r) => r.completion_length_mean, format: (value) => number(value, 0) }],
  },
  {
    key: 'gradient',
    title: 'Gradient norm',
    lines: [{ name: 'before clipping', colour: BLUE, of: (r) => r.grad_norm, format: (value) => number(value, 3) }],
  },
  {
    key: 'time',
    title: 'Seconds a step',
    lines: [
      { name: 'training', colour: BLUE, of: (r) => r.seconds_train, format: two },
      { name: 'rollouts, metric', colour: ORANGE, of: (r) => r.seconds_between, format: two },
    ],
  },
  {
    key: 'kl',
    title: 'Distance from the base',
    optional: true,
    lines: [{ name: 'KL, nats a token', colour: GREEN, of: (r) => r.kl, format: (value) => number(value, 4) }],
  },
  {
    key: 'clip',
    title: 'Tokens clipped',
    optional: true,
    format: percent,
    lines: [
      { name: 'low', colour: BLUE, of: (r) => 100 * r.clip_ratio_low, format: percent },
      { name: 'high', colour: RED, of: (r) => 100 * r.clip_ratio_high, format: percent },
    ],
  },
]

/** Small charts beside one another. */
export function smallCharts(records: readonly StepRecord[], view: ChartView): Element_[] {
  const shows = ({ optional, lines }: SmallChart) =>
    !optional || lines.some(({ of }) => records.some((record) => (of(record) ?? 0) !== 0))
  return SMALL.filter(shows).map(({ lines, optional: _, ...chart }) =>
    stepChart(
      { ...chart, small: true, height: 150, series: lines.map(({ of, ...line }) => ({ ...line, y: records.map(of) })) },
      view,
    ),
  )
}
