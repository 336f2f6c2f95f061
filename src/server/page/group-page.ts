// One group to read: its prompt, and its completions, best first.

import type { RolloutGroup } from '../../protocol'
import { type Element_, h } from './dom.js'
import { number, plural, signed } from './format.js'
import { rewardDot } from './groups-chart.js'
import { rewardColour } from './palette.js'
import type { Range } from './scale.js'
import { changed, state } from './state.js'

type Rollout = RolloutGroup['rollouts'][number]

/** Longer than this a completion is folded. */
const LONG = 700

export function groupPage(group: RolloutGroup): Element_ {
  const all = state.rollouts?.groups ?? [group]
  const rewards = all.flatMap(({ rollouts }) => rollouts.map(({ reward }) => reward)) // a colour means the same in all groups of the step
  const range: Range = [Math.min(...rewards), Math.max(...rewards)]
  const limit = Math.max(1e-9, ...group.rollouts.map(({ advantage }) => Math.abs(advantage)))
  const ordered = group.rollouts.map((rollout, i) => ({ rollout, i })).sort((a, b) => b.rollout.advantage - a.rollout.advantage)
  const key = `${group.step}-${group.predictor}-${group.example}`
  const items = ordered.map(({ rollout, i }) => completion(rollout, { id: `${key}-${i}`, range, limit }))
  const label = `${plural(ordered.length, 'completion')}, best first`
  return h(
    'article',
    { key, class: 'group' },
    h('h4', null, group.title),
    prompt(group),
    h('ol', { class: 'rollouts', 'aria-label': label }, items),
  )
}

function prompt({ messages }: RolloutGroup): Element_ {
  const length = messages.reduce((sum, { content }) => sum + content.length, 0)
  const size = `${plural(messages.length, 'message')}, ${plural(length, 'character')}`
  return h(
    'details',
    { class: 'prompt' },
    h('summary', null, 'Prompt ', h('span', { class: 'muted' }, size)),
    messages.map(({ role, content }) =>
      h('div', { class: 'message' }, h('span', { class: 'role' }, role), h('pre', { tabindex: 0 }, content)),
    ),
  )
}

interface About {
  readonly id: string
  readonly range: Range
  readonly limit: number
}

function completion(rollout: Rollout, { id, range, limit }: About): Element_ {
  const { completion: text, reward, advantage, tokens, truncated, source } = rollout
  const folded = text.length > LONG && !state.unfolded.has(id)
  const unfold = () => {
    state.unfolded.add(id)
    changed({ now: true })
  }
  const score = h(
    'div',
    { class: 'score' },
    h(
      'span',
      null,
      rewardDot(rewardColour(reward, range)),
      h('span', { class: 'muted' }, 'reward'),
      h('b', null, number(reward)),
    ),
    h('span', null, advantageBar(advantage, limit), h('span', { class: 'muted' }, 'advantage'), h('b', null, signed(advantage))),
    h('span', { class: 'muted' }, plural(tokens, 'token')),
    truncated && h('span', { class: 'tag' }, 'cut at the limit'),
    source !== 'id' && h('span', { class: 'tag' }, source === 'text' ? 'found by its text' : 'tokenized again'),
  )
  const shown =
    text === '' ? h('pre', { class: 'empty' }, 'an empty completion') : h('pre', null, folded ? `${text.slice(0, LONG)}…` : text)
  const more =
    folded && h('button', { type: 'button', class: 'more', onclick: unfold }, `Show all ${plural(text.length, 'character')}`)
  return h('li', { key: id }, score, shown, more)
}

/** From the middle: to the right and blue for better than the group, to the left and red for worse. */
function advantageBar(advantage: number, limit: number): Element_ {
  const width = (34 * Math.abs(advantage)) / limit
  const better = advantage >= 0
  return h(
    'svg',
    { width: 72, height: 12, 'aria-hidden': 'true' },
    h('rect', { x: better ? 36 : 36 - width, y: 2, width, height: 8, class: better ? 'better' : 'worse' }),
    h('line', { x1: 36, x2: 36, y1: 0, y2: 12, class: 'middle-line' }),
  )
}
