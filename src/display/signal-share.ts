// Is there something to learn from, and is the update sane: four small charts over the same steps.

import type { StepRecord } from '../protocol'
import { type Axis, Figure, type Trace } from './figure'
import { axis, BLUE, baseLayout, ORANGE, panelHeading, RED, stepAxis } from './style'

interface Panel {
  readonly title: string
  readonly series: readonly { name: string; of: (record: StepRecord) => number; color: string }[]
  readonly percent?: boolean
}

const PANELS: readonly Panel[] = [
  {
    title: 'rollouts: <span style="color:#2f86c9">no spread</span>, <span style="color:#dd8a1c">cut short</span>',
    series: [
      { name: 'in groups without spread', of: (r) => 100 * r.frac_reward_zero_std, color: BLUE },
      { name: 'cut at the length limit', of: (r) => 100 * r.truncated_share, color: ORANGE },
    ],
    percent: true,
  },
  {
    title: 'tokens clipped: <span style="color:#2f86c9">low</span>, <span style="color:#cf5a36">high</span>',
    series: [
      { name: 'clipped low', of: (r) => 100 * r.clip_ratio_low, color: BLUE },
      { name: 'clipped high', of: (r) => 100 * r.clip_ratio_high, color: RED },
    ],
    percent: true,
  },
  { title: 'entropy a token (nats)', series: [{ name: 'entropy', of: (r) => r.entropy, color: BLUE }] },
  { title: 'gradient norm', series: [{ name: 'gradient norm', of: (r) => r.grad_norm, color: BLUE }] },
]

const COLUMNS = [
  [0, 0.46],
  [0.55, 1],
] as const
const ROWS = [
  [0.6, 0.94],
  [0, 0.36],
] as const

/** Share of rollouts without a signal, clipping, entropy and gradient norm. */
export function signalShare(records: readonly StepRecord[], { title = 'Learning signal' }: { title?: string } = {}): Figure {
  const layout = baseLayout(title, 440)
  layout.hovermode = 'closest'
  const steps = records.map(({ step }) => step)
  const data: Trace[] = []
  for (const [i, panel] of PANELS.entries()) {
    const suffix = (i === 0 ? '' : String(i + 1)) as '' | '2' | '3' | '4'
    const [column, row] = [COLUMNS[i % 2]!, ROWS[i < 2 ? 0 : 1]!]
    layout[`xaxis${suffix}`] = stepAxis(steps, { domain: column, anchor: `y${suffix}`, title: { text: i < 2 ? '' : 'step' } })
    layout[`yaxis${suffix}`] = panelAxis(panel, records, { domain: row, anchor: `x${suffix}` })
    layout.annotations.push(panelHeading(panel.title, column[0], row[1]))
    for (const { name, of, color } of panel.series)
      data.push({
        ...points(records.map(of), steps, panel),
        name,
        xaxis: `x${suffix}`,
        yaxis: `y${suffix}`,
        line: { color, width: 2 },
        marker: { size: 5, color },
      })
  }
  return new Figure(data, layout, summary(records))
}

function points(y: readonly number[], steps: readonly number[], { percent }: Panel): Trace {
  const hovertemplate = percent
    ? '%{fullData.name}: %{y:.0f} %<extra>step %{x}</extra>'
    : '%{fullData.name}: %{y:.3f}<extra>step %{x}</extra>'
  return { type: 'scatter', mode: 'lines+markers', x: steps, y, hovertemplate }
}

function panelAxis({ series, percent }: Panel, records: readonly StepRecord[], place: Partial<Axis>): Axis {
  const highest = Math.max(0, ...series.flatMap(({ of }) => records.map(of)))
  const top = percent ? Math.min(104, Math.max(10, highest * 1.15)) : highest > 0 ? highest * 1.15 : 1
  return axis('', { range: [0, top], nticks: 5, ...(percent ? { ticksuffix: ' %' } : {}), ...place })
}

function summary(records: readonly StepRecord[]): string {
  const last = records.at(-1)
  if (!last) return 'Learning signal: no step yet'
  return `Step ${last.step}: ${Math.round(100 * last.frac_reward_zero_std)} % of rollouts without a signal, entropy ${last.entropy.toFixed(2)}, gradient norm ${last.grad_norm.toFixed(3)}`
}
