// What GRPO learns from: in each group, which rollouts were better than their siblings, and by how much.

import { OptionError } from '../errors'
import type { GroupRecord, StepRecord } from '../protocol'
import { type Annotation, type Axis, Figure, type Trace } from './figure'
import { escapeHtml, shorten } from './mime'
import { axis, baseLayout, SCALE, stepAxis } from './style'

const MAX_GROUPS = 24
const MAX_STEPS = 120

/** One row a group of the newest step, one dot a rollout: its place is its advantage, its colour its reward. With several records, also all steps as a map. */
export function groupAdvantages(input: StepRecord | readonly StepRecord[], { title }: { title?: string } = {}): Figure {
  const records = 'groups' in input ? [input] : input
  const last = records.at(-1)
  if (!last) throw new OptionError('groupAdvantages needs at least one step record; the list is empty')
  const groups = last.groups.slice(0, MAX_GROUPS)
  const more = last.groups.length > MAX_GROUPS ? `, the first ${MAX_GROUPS} of ${last.groups.length} groups` : ''
  const layout = baseLayout(title ?? `Advantages in step ${last.step}${more}`, 120 + 28 * Math.max(4, groups.length))
  layout.uirevision = 'advantages'
  layout.hovermode = 'closest'
  layout.margin.l = 250
  layout.margin.r = 24
  const several = records.length > 1
  layout.xaxis = axis('worse ← advantage → better', {
    domain: [0, several ? 0.56 : 1],
    zeroline: true,
    range: symmetric(groups),
  })
  layout.yaxis = groupAxis(groups)
  const data = [dots(groups)]
  layout.annotations.push(colourKey(groups, several ? 0.56 : 1))
  if (several) {
    const shownRecords = records.slice(-MAX_STEPS)
    data.push(map(shownRecords))
    layout.xaxis2 = stepAxis(
      shownRecords.map(({ step }) => step),
      { domain: [0.62, 1], anchor: 'y2', title: { text: 'all rollouts, by step' } },
      6,
    )
    layout.yaxis2 = { domain: [0, 1], anchor: 'x2', showticklabels: false, showgrid: false, zeroline: false }
    layout.barmode = 'overlay'
  }
  return new Figure(data, layout, summary(last))
}

/** Rollouts of a group at the same advantage stand side by side. */
function dots(groups: readonly GroupRecord[]): Trace {
  const points = groups.flatMap((group, row) => {
    const offsets = sideBySide(group.advantages)
    return group.advantages.map((advantage, i) => ({
      x: advantage,
      y: row + offsets[i]!,
      reward: group.rewards[i] ?? 0,
      text: hover(group, i),
    }))
  })
  return {
    type: 'scatter',
    mode: 'markers',
    name: 'rollouts',
    x: points.map(({ x }) => x),
    y: points.map(({ y }) => y),
    text: points.map(({ text }) => text),
    hovertemplate: '%{text}<extra></extra>',
    cliponaxis: false,
    marker: {
      size: 11,
      color: points.map(({ reward }) => reward),
      colorscale: SCALE,
      ...range(points.map(({ reward }) => reward)),
      line: { width: 1, color: 'rgba(90,98,108,0.55)' },
    },
  }
}

/** A tile for each rollout of each step: a column of groups, best rollout on top. Bars, since plotly's basic bundle has no heat map. */
function map(records: readonly StepRecord[]): Trace {
  const tiles = records.flatMap(({ step, groups }) => {
    let height = 0
    return groups.flatMap((group) => {
      const column = [...group.advantages]
        .sort((a, b) => a - b)
        .map((advantage) => ({ step, advantage, base: height++, title: group.title }))
      height += 0.6
      return column
    })
  })
  const limit = Math.max(1e-9, ...tiles.map(({ advantage }) => Math.abs(advantage)))
  return {
    type: 'bar',
    name: 'all steps',
    x: tiles.map(({ step }) => step),
    y: tiles.map(() => 0.94),
    base: tiles.map(({ base }) => base),
    width: 0.92,
    xaxis: 'x2',
    yaxis: 'y2',
    text: tiles.map(({ step, advantage, title }) => `step ${step}: ${label(title, 60)}<br>advantage ${signed(advantage)}`),
    textposition: 'none',
    hovertemplate: '%{text}<extra></extra>',
    marker: { color: tiles.map(({ advantage }) => advantage), colorscale: SCALE, cmin: -limit, cmax: limit, line: { width: 0 } },
  }
}

function groupAxis(groups: readonly GroupRecord[]): Axis {
  const names = groups.map(({ title, advantages }) =>
    hasSpread(advantages) ? label(title, 36) : `${label(title, 22)} (no spread)`,
  )
  return {
    tickvals: groups.map((_, row) => row),
    ticktext: names,
    range: [groups.length - 0.4, -0.6],
    zeroline: false,
    automargin: true,
    gridcolor: 'rgba(128,136,144,0.2)',
  }
}

function hover(group: GroupRecord, i: number): string {
  const completion = shorten(group.completions[i] ?? '', 240)
  const wrapped = completion
    .replace(/(.{60}\S*)\s/g, '$1\n')
    .split('\n')
    .map(escapeHtml)
    .join('<br>')
  return `<b>${label(group.title, 70)}</b><br>reward ${group.rewards[i]}, advantage ${signed(group.advantages[i] ?? 0)}, ${group.lengths[i] ?? '?'} tokens<br>${wrapped}`
}

/** Offsets across the row for values that would cover each other. */
function sideBySide(values: readonly number[]): number[] {
  return values.map((value, i) => {
    const same = values.flatMap((other, j) => (Math.abs(other - value) < 1e-6 ? [j] : []))
    return (same.indexOf(i) - (same.length - 1) / 2) * Math.min(0.27, 0.8 / same.length)
  })
}

/** What the dots' colours mean, above their right corner at `x`. */
function colourKey(groups: readonly GroupRecord[], x: number): Annotation {
  const { cmin, cmax } = range(groups.flatMap(({ rewards }) => rewards))
  const dot = (colour: string) => `<span style="color:${colour}">●</span>`
  const text = `reward ${dot(SCALE[0]![1])} ${+cmin.toFixed(2)} … ${dot(SCALE.at(-1)![1])} ${+cmax.toFixed(2)}`.replace(
    ' -',
    ' −',
  )
  return {
    text,
    x,
    y: 1.02,
    xref: 'paper',
    yref: 'paper',
    xanchor: 'right',
    yanchor: 'bottom',
    showarrow: false,
    font: { size: 12 },
  }
}

function symmetric(groups: readonly GroupRecord[]): readonly [number, number] {
  const limit = Math.max(0.5, ...groups.flatMap(({ advantages }) => advantages.map(Math.abs))) * 1.1
  return [-limit, limit]
}

function range(rewards: readonly number[]): { cmin: number; cmax: number } {
  const [low, high] = [Math.min(...rewards), Math.max(...rewards)]
  return low < high ? { cmin: low, cmax: high } : { cmin: low - 1, cmax: high + 1 }
}

function hasSpread(advantages: readonly number[]): boolean {
  return advantages.some((advantage) => Math.abs(advantage) > 1e-8)
}

function label(text: string, length: number): string {
  return escapeHtml(shorten(text, length))
}

function signed(value: number): string {
  return `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(2)}`
}

function summary({ step, groups }: StepRecord): string {
  const silent = groups.filter(({ advantages }) => !hasSpread(advantages)).length
  return `Advantages in step ${step}: ${groups.length} groups, ${silent} without spread`
}
