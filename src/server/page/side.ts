// The side of the page: the jobs, newest first, those of earlier servers, and the models that answer.

import type { JobSummary } from '../../protocol'
import { copyButton } from './copy.js'
import { type Element_, h } from './dom.js'
import { jobName, plural } from './format.js'
import { BLUE, ORANGE } from './palette.js'
import { sparkline } from './sparkline.js'
import { state, stepsMade } from './state.js'

/** Earlier runs that are listed unfolded. */
const SHOWN = 5

export function side(): Element_ {
  const jobs = (state.jobs ?? []).filter(({ earlier }) => !earlier)
  const past = (state.jobs ?? []).filter(({ earlier }) => earlier)
  const none = h('p', { class: 'muted' }, state.jobs === null ? 'Asking the server …' : 'None yet.')
  const saved = state.models.filter((name) => isSaved(name))
  return h(
    'nav',
    { class: 'side', 'aria-label': 'Jobs and models' },
    h('h2', null, 'Jobs'),
    jobs.length === 0 ? none : h('ul', { class: 'jobs' }, jobs.map(entry)),
    past.length > 0 && h('h2', null, 'Earlier runs'),
    past.length > 0 && h('ul', { class: 'jobs' }, past.slice(0, SHOWN).map(entry)),
    past.length > SHOWN &&
      h(
        'details',
        { class: 'saved' },
        h('summary', null, `and ${plural(past.length - SHOWN, 'older one', 'older ones')}`),
        h('ul', { class: 'jobs' }, past.slice(SHOWN).map(entry)),
      ),
    h('h2', null, 'Models that answer'),
    h('ul', { class: 'models' }, state.models.filter((name) => !isSaved(name)).map(model)),
    saved.length > 0 &&
      h(
        'details',
        { class: 'saved' },
        h('summary', null, `and ${plural(saved.length, 'saved policy', 'saved policies')}`),
        h('ul', { class: 'models' }, saved.map(model)),
      ),
  )
}

function model(name: string): Element_ {
  return h('li', { key: name }, h('code', { title: name }, shortName(name)), copyButton(name, `Copy the name ${name}`))
}

/** A checkpoint, or a run of an earlier server: it is opened when it is asked. */
function isSaved(name: string): boolean {
  return name.includes('@') || (/^(grpo|ftjob):/.test(name) && !state.jobs?.some(({ id, earlier }) => id === name && !earlier))
}

function entry(job: JobSummary): Element_ {
  const { id, kind, status, steps, recent } = job
  const step = stepsMade(job)
  const grpo = kind === 'grpo'
  const note = [grpo ? 'GRPO' : 'fine-tuning', said(status), steps === null ? plural(step, 'step') : `${step}/${steps}`].join(
    ' · ',
  )
  return h(
    'li',
    { key: id },
    h(
      'a',
      { href: `#${encodeURIComponent(id)}`, 'aria-current': id === state.job ? 'true' : null, title: id },
      h('span', { class: `state ${status}`, 'aria-hidden': 'true' }),
      h('span', { class: 'name' }, jobName(id)),
      h('span', { class: 'note' }, note),
      sparkline(recent, { width: 64, height: 22, colour: grpo ? BLUE : ORANGE }),
    ),
  )
}

/** Jobs of one model differ in what stands behind the model: grpo:…:golden-fern@best */
function shortName(name: string): string {
  const [kind, , ...rest] = name.split(':')
  const checkpoint = name.includes('@') ? name.slice(name.indexOf('@')) : ''
  return rest.length < 2 ? name : `${kind}:…:${rest.slice(0, -1).join(':')}${checkpoint}`
}

/** A status as a person says it. */
export function said(status: string): string {
  return status.replaceAll('_', ' ')
}
