// The page of the server: puts the parts together, follows the address, remembers the theme.

import { show, turnTo, watch } from './data.js'
import { childrenOf, type Element_, h, patch } from './dom.js'
import { jobName } from './format.js'
import { jobPage } from './job-page.js'
import { side } from './side.js'
import { changed, onChange, size, state } from './state.js'
import { vitals } from './vitals.js'
import { welcome } from './welcome.js'

const root = document.getElementById('page')!

function render(): void {
  const job = state.jobs?.find(({ id }) => id === state.job)
  document.title = job ? `${job.step}${job.steps === null ? '' : `/${job.steps}`} ${jobName(job.id)} · arbor-nb` : 'arbor-nb'
  const main = h('main', { id: 'main', tabindex: -1 }, job ? jobPage(job) : state.jobs !== null && welcome())
  const problem = state.problem !== null && h('p', { key: 'problem', class: 'offline', role: 'alert' }, state.problem)
  patch(root, childrenOf([banner(), problem, vitals(), h('div', { key: 'body', class: 'body' }, side(), main)]))
  measure()
}

function banner(): Element_ {
  const health = state.health.at(-1)
  const where = health?.model && h('span', { class: 'muted' }, ` ${health.precision} on ${health.device_description}`)
  return h(
    'header',
    { key: 'banner', class: 'banner' },
    h('img', { src: 'page/logo-svg.svg', width: 30, height: 30, alt: '' }),
    h('h1', null, 'arbor-nb'),
    h('p', { class: 'about' }, h('strong', null, health ? (health.model ?? 'no model yet') : ''), where),
    h(
      'nav',
      { 'aria-label': 'Elsewhere' },
      h('a', { href: 'docs' }, 'API'),
      h('button', { type: 'button', onclick: nextTheme }, `Theme: ${state.theme}`),
    ),
  )
}

const THEMES = ['auto', 'light', 'dark'] as const

function nextTheme(): void {
  setTheme(THEMES[(THEMES.indexOf(state.theme) + 1) % THEMES.length]!)
  storage()?.setItem('arbor-theme', state.theme)
  changed({ now: true })
}

function setTheme(theme: string | null): void {
  state.theme = THEMES.find((one) => one === theme) ?? 'auto'
  document.documentElement.dataset['theme'] = state.theme
}

/** Null in a frame that may keep nothing. */
function storage(): Storage | null {
  try {
    return localStorage
  } catch {
    return null
  }
}

/** Figures are as wide as the main column, in whole pixels. */
function measure(): void {
  const width = Math.floor(document.getElementById('main')?.clientWidth ?? size.width)
  if (width === size.width || width < 200) return
  size.width = width
  changed({ now: true })
}

/** The address names the job: `#id`, or `#id/step`. */
function follow(): void {
  const [id = '', step = ''] = location.hash.slice(1).split('/').map(decoded)
  if (id === '' || id === 'main') return // #main is where the skip link leads
  show(id, { chosen: true })
  if (/^\d+$/.test(step)) turnTo(Number(step))
  changed({ now: true })
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    return '' // an address that somebody typed
  }
}

setTheme(storage()?.getItem('arbor-theme') ?? null)
onChange(render)
addEventListener('hashchange', follow)
new ResizeObserver(measure).observe(root)
follow()
changed({ now: true })
void watch()
