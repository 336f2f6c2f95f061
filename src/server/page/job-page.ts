// One job: what it is, how far it is, its charts, its rollouts, its files.

import type { JobSummary } from '../../protocol'
import { advantageMap } from './advantage-map.js'
import { copyButton } from './copy.js'
import { turnTo } from './data.js'
import { type Child, type Element_, h } from './dom.js'
import { clock, duration, jobName, plural } from './format.js'
import { groupsChart } from './groups-chart.js'
import { rewardChart, smallCharts } from './job-charts.js'
import { jobFiles } from './job-files.js'
import { chooseGroup, reader, readGroup } from './reader.js'
import { said } from './side.js'
import { changed, shownStep, size, state, stepsMade } from './state.js'
import type { ChartView } from './step-view.js'
import { lossCharts } from './tuning.js'

export function jobPage(job: JobSummary): Element_ {
  const drawn = job.kind === 'grpo' ? charts(job) : lossCharts(view(size.width, job))
  return h('section', { key: job.id, class: 'job', 'aria-label': `Job ${job.id}` }, header(job), drawn, jobFiles(job))
}

function header(job: JobSummary): Element_ {
  const { id, kind, status, reason, model, steps } = job
  const notes = [...new Set(state.records.at(-1)?.notes ?? [])]
  const what = `${kind === 'grpo' ? 'GRPO' : 'Fine-tuning'} from ${model}, since ${clock(job.created)}. ${progressLine(job)}`
  return h(
    'header',
    { class: 'job-header' },
    h('div', { class: 'row' }, h('h2', null, jobName(id)), h('span', { class: `chip ${status}` }, said(status))),
    h('p', { class: 'id' }, h('code', null, id), copyButton(id, 'Copy the name of the job')),
    h('p', { class: 'line' }, what),
    steps !== null && progressBar(stepsMade(job) / steps),
    reason !== null && h('p', { class: status === 'failed' ? 'problem' : 'notice', role: 'status' }, reason),
    notes.length > 0 &&
      h(
        'ul',
        { class: 'notes', 'aria-label': 'Notes of the newest step' },
        notes.map((note) => h('li', null, note)),
      ),
  )
}

function progressBar(share: number): Element_ {
  const done = Math.round(100 * Math.min(1, share))
  const bar = (className: string, width: string) => h('rect', { width, height: 4, rx: 2, class: className })
  const value = { 'aria-valuenow': done, 'aria-valuemin': 0, 'aria-valuemax': 100 }
  return h(
    'svg',
    { class: 'progress', width: '100%', height: 4, role: 'progressbar', 'aria-label': 'Steps made', ...value },
    bar('track', '100%'),
    bar('done', `${done}%`),
  )
}

/** Step 34 of 100 · 0.3 s a step · about 20 s left. */
function progressLine(job: JobSummary): string {
  const { kind, steps, status, changed: time } = job
  const step = stepsMade(job)
  const word = kind === 'grpo' ? 'step' : 'update'
  const parts = [steps === null ? plural(step, word) : `${word} ${step} of ${steps}`]
  const seconds = secondsEach()
  if (seconds !== null) parts.push(`${duration(seconds)} ${word === 'step' ? 'a step' : 'an update'}`)
  if (seconds !== null && steps !== null && status === 'running' && step < steps)
    parts.push(`about ${duration(seconds * (steps - step))} left`)
  if (status !== 'running') parts.push(`last changed ${clock(time)}`)
  const line = parts.join(' · ')
  return `${line[0]!.toUpperCase()}${line.slice(1)}.`
}

/** Median of the newest steps, so that one validation doesn't change it. */
function secondsEach(): number | null {
  const steps = state.records.slice(-9).map(({ seconds_train, seconds_between }) => seconds_train + seconds_between)
  const times = [...steps, ...state.losses.slice(-9).map(({ seconds }) => seconds)].sort((a, b) => a - b)
  return times[Math.floor(times.length / 2)] ?? null
}

/** What the charts of the job share. */
function view(width: number, { checkpoints }: JobSummary): ChartView {
  const { records, losses, hover } = state
  const onHover = (step: number | null) => {
    if (step === state.hover) return
    state.hover = step
    changed({ now: true })
  }
  const steps = (records.length > 0 ? records : losses).map(({ step }) => step)
  const now = () => (state.records.length > 0 ? shownStep() : null)
  const version = `${state.generation} ${steps.length} ${checkpoints.length}`
  return { width, steps, version, hover, selected: now(), now, onHover, onSelect: turnTo }
}

const GAP = 28

function charts(job: JobSummary): Child[] {
  const { records, rollouts } = state
  const looked = records.find(({ step }) => step === shownStep()) ?? records.at(-1)
  if (!looked)
    return [h('p', { key: 'first', class: 'muted first', role: 'status' }, 'No step yet. Rewards are drawn here as they come.')]
  const columns = (least: number) => Math.max(1, Math.floor((size.width + GAP) / (least + GAP)))
  const wide = (count: number) => Math.floor((size.width - GAP * (count - 1)) / count)
  const half = wide(Math.min(2, columns(340)))
  const chosen = rollouts?.step === looked.step ? readGroup() : null
  return [
    rewardChart(records, job.checkpoints, view(size.width, job)),
    h(
      'div',
      { key: 'taught', class: 'pair' },
      groupsChart(looked, { width: half, chosen, onChoose: chooseGroup }),
      advantageMap(records, view(half, job)),
    ),
    reader(),
    h(
      'details',
      { key: 'more', class: 'more-charts', open: true },
      h('summary', null, 'Is the update sane?'),
      h('div', { class: 'smalls' }, smallCharts(records, view(wide(columns(230)), job))),
    ),
  ]
}
