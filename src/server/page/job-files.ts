// Where a run lies, its checkpoints, and what it was asked for.

import type { JobDetail, JobSummary } from '../../protocol'
import { copyButton } from './copy.js'
import { type Element_, h } from './dom.js'
import { clock, number, short } from './format.js'
import { state } from './state.js'

export function jobFiles({ id, folder, checkpoints }: JobSummary): Element_ {
  const { detail } = state
  const checkpoint = ({ name, step, time, score }: JobSummary['checkpoints'][number]) => {
    const about = ` step ${step}, ${score === null ? '' : `${number(score, 1)} %, `}${clock(time)}`
    return h('li', { key: name }, h('code', null, name), h('span', { class: 'muted' }, about))
  }
  return h(
    'section',
    { key: 'files', class: 'files', 'aria-label': 'Files and configuration' },
    h('h3', null, 'On disk'),
    h('p', { class: 'path' }, h('code', null, folder), copyButton(folder, 'Copy the path of the run folder')),
    checkpoints.length > 0 && h('ul', { class: 'checkpoints', 'aria-label': 'Checkpoints' }, checkpoints.map(checkpoint)),
    detail?.id === id && h('details', { class: 'config' }, h('summary', null, 'Configuration'), configTables(detail)),
  )
}

/** What was chosen stands first. */
function configTables({ config, chosen }: JobDetail): Element_ {
  const row = (key: string) => h('tr', { key }, h('th', { scope: 'row' }, key), h('td', null, valueText(config[key])))
  const table = (title: string, keys: readonly string[]) =>
    h('table', null, h('caption', null, title), h('tbody', null, keys.map(row)))
  const others = Object.keys(config).filter((key) => !chosen.includes(key))
  return h('div', { class: 'tables' }, table('Chosen', chosen), table('Left at their defaults', others))
}

function valueText(value: unknown): string {
  if (typeof value === 'number') return short(value)
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? '')
}
