// The rollouts of one step, to be read: which step, which group, and that group's page.

import type { RolloutGroup } from '../../protocol'
import { turnTo } from './data.js'
import { type Child, type Element_, h } from './dom.js'
import { number, shorten } from './format.js'
import { groupPage } from './group-page.js'
import { hasSpread } from './groups-chart.js'
import { changed, shownStep, state } from './state.js'
import { keyedStep } from './step-view.js'

interface Listed {
  readonly group: RolloutGroup
  /** In the step. */
  readonly index: number
}

export function reader(): Child {
  const steps = state.records.map(({ step }) => step)
  if (steps.length === 0) return null
  const groups = state.rollouts?.groups ?? []
  const predictors = [...new Set(groups.map(({ predictor }) => predictor))].filter((name) => name !== '')
  const listed = groups
    .map((group, index) => ({ group, index }))
    .filter(({ group }) => state.predictor === '' || group.predictor === state.predictor)
  const read = listed.find(({ index }) => index === readGroup()) ?? listed[0]
  const several = predictors.length > 1
  // Whoever points at or is in a text reads it: it isn't taken away.
  const reading = {
    onpointerenter: () => void (state.reading = true),
    onpointerleave: (event: PointerEvent) =>
      void (state.reading = (event.currentTarget as Element).contains(document.activeElement)),
    onfocus: () => void (state.reading = true),
  }
  return h(
    'section',
    { key: 'reader', class: 'reader', 'aria-label': 'Rollouts' },
    header(steps, predictors),
    h(
      'div',
      { class: 'pages', 'aria-busy': String(state.rollouts?.step !== shownStep()), ...reading },
      groupList(listed, { read, several }),
      read ? groupPage(read.group) : h('p', { class: 'muted' }, 'Fetching the rollouts …'),
    ),
  )
}

function header(steps: readonly number[], predictors: readonly string[]): Element_ {
  const now = shownStep() ?? 0
  const [first, newest] = [steps[0] ?? 1, steps.at(-1) ?? 1]
  const button = (text: string, label: string, key: string, end: number) =>
    h(
      'button',
      {
        type: 'button',
        'aria-label': label,
        disabled: now === end,
        onclick: () => turnTo(keyedStep(key, steps, shownStep() ?? now)),
      },
      text,
    )
  const typed = (event: Event) => {
    const step = Number((event.target as HTMLInputElement).value)
    if (steps.includes(step)) turnTo(step)
  }
  const field = {
    type: 'number',
    min: first,
    max: newest,
    value: now,
    key: `step${now}`,
    'aria-label': 'Step to read',
    onchange: typed,
  }
  const following = state.step === null
  return h(
    'header',
    null,
    h('h3', null, 'Rollouts'),
    h(
      'div',
      { class: 'stepper', role: 'group', 'aria-label': 'Step' },
      button('‹', 'Previous step', 'ArrowLeft', first),
      h('label', null, 'step ', h('input', field), h('span', { class: 'muted' }, ` of ${newest}`)),
      button('›', 'Next step', 'ArrowRight', newest),
    ),
    h(
      'button',
      { type: 'button', class: 'follow', 'aria-pressed': String(following), onclick: () => follow(following) },
      'Follow the newest',
    ),
    predictors.length > 1 && predictorChoice(predictors),
  )
}

/** Pressed, the reader goes along with the run; released, it stays where it is. */
function follow(following: boolean): void {
  if (following) state.step = shownStep()
  else turnTo(null)
  changed({ now: true })
}

function predictorChoice(names: readonly string[]): Element_ {
  const choose = (event: Event) => {
    state.predictor = (event.target as HTMLSelectElement).value
    changed({ now: true })
  }
  const option = (value: string, text: string) => h('option', { value }, text)
  return h(
    'label',
    { class: 'predictor' },
    'predictor ',
    h(
      'select',
      { value: state.predictor, onchange: choose },
      option('', 'all'),
      names.map((name) => option(name, name)),
    ),
  )
}

/** A list with one place for the keyboard; arrows move the choice. */
function groupList(listed: readonly Listed[], { read, several }: { read: Listed | undefined; several: boolean }): Element_ {
  const indices = listed.map(({ index }) => index)
  const keys = (event: KeyboardEvent) => {
    const key = { ArrowUp: 'ArrowLeft', ArrowDown: 'ArrowRight', ArrowLeft: '', ArrowRight: '' }[event.key] ?? event.key
    const next = read && keyedStep(key, indices, indices.includes(readGroup()) ? readGroup() : read.index)
    if (next === null || next === undefined) return
    event.preventDefault()
    chooseGroup(next)
    document.getElementById(`group-${next}`)?.scrollIntoView({ block: 'nearest' })
  }
  const list = { class: 'groups', role: 'listbox', 'aria-label': 'Groups', tabindex: 0, onkeydown: keys }
  return h(
    'div',
    { ...list, 'aria-activedescendant': read && `group-${read.index}` },
    listed.map((one) => entry(one, { chosen: one === read, several })),
  )
}

function entry({ group, index }: Listed, { chosen, several }: { chosen: boolean; several: boolean }): Element_ {
  const spread = hasSpread(group.rollouts.map(({ advantage }) => advantage))
  const rewards = group.rollouts.map(({ reward }) => reward)
  const mean = rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length
  const note = spread ? `mean ${number(mean)}, best ${number(Math.max(...rewards))}` : `all ${number(mean)}: no spread`
  const whose = several && state.predictor === '' ? `${group.predictor} · ` : ''
  const option = { key: `group${index}`, id: `group-${index}`, role: 'option', 'aria-selected': String(chosen) }
  return h(
    'div',
    { ...option, class: spread ? 'entry' : 'entry quiet', onclick: () => chooseGroup(index) },
    h('span', { class: 'title' }, shorten(group.title, 120)),
    h('span', { class: 'note' }, whose + note),
  )
}

/** The group that is read: the chosen one, else the one whose rewards differ most. */
export function readGroup(): number {
  const groups = state.rollouts?.groups ?? []
  const spreads = groups.map(({ rollouts }) => deviation(rollouts.map(({ reward }) => reward)))
  return state.group ?? Math.max(0, spreads.indexOf(Math.max(...spreads)))
}

function deviation(values: readonly number[]): number {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  return values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length
}

export function chooseGroup(index: number): void {
  state.group = index
  changed({ now: true })
}
