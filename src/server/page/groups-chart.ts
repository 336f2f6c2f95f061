// What GRPO learns from: in each group of a step, which rollouts were better than their siblings, and by how much.

import type { GroupRecord, StepRecord } from '../../protocol'
import { type Child, type Element_, h } from './dom.js'
import { number, shorten, signed } from './format.js'
import { rewardColour, SCALE } from './palette.js'
import { type Range, type Scale, scale, ticks } from './scale.js'

const ROW = 26
const TOP = 12
const MAX_GROUPS = 24

export interface GroupsView {
  readonly width: number
  /** The group that is read. */
  readonly chosen: number | null
  readonly onChoose: (index: number) => void
}

/** One row a group, one dot a rollout: its place is its advantage, its colour its reward. */
export function groupsChart(record: StepRecord, view: GroupsView): Element_ {
  const groups = record.groups.slice(0, MAX_GROUPS)
  const label = Math.min(260, Math.max(90, view.width * 0.42))
  const bottom = TOP + ROW * groups.length
  const height = bottom + 26
  const limit = Math.max(0.5, ...groups.flatMap(({ advantages }) => advantages.map(Math.abs))) * 1.1
  const x = scale([-limit, limit], [label + 16, view.width - 16])
  const all = groups.flatMap(({ rewards }) => rewards)
  const rewards: Range = [Math.min(...all), Math.max(...all)]
  const frame = {
    width: view.width,
    height,
    viewBox: `0 0 ${view.width} ${height}`,
    role: 'img',
    'aria-label': groupsSentence(record),
  }
  const svg = h(
    'svg',
    frame,
    axis(limit, x, bottom),
    groups.map((group, i) => row(group, i, { x, label, rewards, view })),
  )
  const more = record.groups.length > groups.length ? `, the first ${groups.length} of ${record.groups.length} groups` : ''
  const head = h('figcaption', null, h('h3', null, `Advantages in step ${record.step}${more}`), rewardKey(rewards))
  return h('figure', { key: 'groups', class: 'chart' }, head, h('div', { class: 'plot still' }, svg))
}

function axis(limit: number, x: Scale, bottom: number): Child[] {
  return ticks([-limit, limit], 4).flatMap((value) => [
    h('line', { x1: x(value), x2: x(value), y1: 8, y2: bottom, class: value === 0 ? 'grid zero' : 'grid' }),
    h('text', { x: x(value), y: bottom + 17, class: 'tick middle' }, value === 0 ? '0' : signed(value).replace(/\.?0+$/, '')),
  ])
}

interface Placed {
  readonly x: Scale
  readonly label: number
  readonly rewards: Range
  readonly view: GroupsView
}

function row(group: GroupRecord, i: number, { x, label, rewards, view }: Placed): Element_ {
  const y = TOP + ROW * (i + 0.5)
  const quiet = hasSpread(group.advantages) ? '' : ' quiet'
  return h(
    'g',
    { class: `row${i === view.chosen ? ' chosen' : ''}${quiet}`, onclick: () => view.onChoose(i) },
    h('rect', { x: 0, y: y - ROW / 2 + 1, width: view.width, height: ROW - 2, rx: 4, class: 'hit' }),
    h('text', { x: label, y: y + 4, class: 'label end' }, shorten(group.title, Math.floor((label - 14) / 6.9))),
    dots(group, { x, y, rewards }),
  )
}

/** Rollouts at the same advantage stand side by side. */
function dots({ advantages, rewards: own }: GroupRecord, { x, y, rewards }: { x: Scale; y: number; rewards: Range }): Element_[] {
  return advantages.map((advantage, i) => {
    const same = advantages.flatMap((other, j) => (Math.abs(other - advantage) < 1e-6 ? [j] : []))
    const aside = (same.indexOf(i) - (same.length - 1) / 2) * Math.min(7, 20 / same.length)
    return h('circle', { cx: x(advantage), cy: y + aside, r: 4.6, fill: rewardColour(own[i] ?? 0, rewards), class: 'dot' })
  })
}

/** What the dots' colours mean. */
function rewardKey([low, high]: Range): Element_ {
  const entry = (word: string, value: number, colour: string) =>
    h('li', null, h('span', null, word), rewardDot(colour), h('b', null, number(value)))
  if (low === high) return h('ul', { class: 'legend' }, entry('reward', low, rewardColour(low, [low, high])))
  return h('ul', { class: 'legend' }, entry('reward', low, SCALE[0]![1]), entry('to', high, SCALE.at(-1)![1]))
}

export function rewardDot(colour: string): Element_ {
  return h(
    'svg',
    { width: 10, height: 10, 'aria-hidden': 'true' },
    h('circle', { cx: 5, cy: 5, r: 4.4, fill: colour, class: 'dot' }),
  )
}

export function groupsSentence({ step, groups }: StepRecord): string {
  const silent = groups.filter(({ advantages }) => !hasSpread(advantages)).length
  return `Advantages in step ${step}: ${groups.length} groups, ${silent} without spread`
}

export function hasSpread(advantages: readonly number[]): boolean {
  return advantages.some((advantage) => Math.abs(advantage) > 1e-8)
}
