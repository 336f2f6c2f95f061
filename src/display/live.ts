// A run while it runs: a status line with a word on what the numbers mean, the reward curve, and the newest groups.
// Each is one output that is replaced.

import type { StepRecord } from '../protocol'
import { diagnose } from './diagnosis'
import { groupAdvantages } from './group-advantages'
import { type DisplayHost, escapeHtml, type MimeBundle } from './mime'
import { Pace } from './pace'
import { rewardCurve, type ValidationPoint } from './reward-curve'
import { Slots } from './slots'

export interface LiveRunOptions {
  /** Steps the run will make; with it the status tells the time left. */
  readonly totalSteps?: number
  readonly title?: string
  /** What to know about the configuration; shown once, above the charts. */
  readonly notes?: readonly string[]
  /** null: nothing is shown. Default: the notebook we run in. */
  readonly host?: DisplayHost | null
}

/** What whoever trains calls; all calls return at once. */
export interface LiveRun {
  /** A step is done. */
  update(record: StepRecord): void
  validated(point: ValidationPoint): void
  /** What is going on between steps, in a few words. */
  progress(text: string): void
  /** Draws the last state; `reason` when the run failed. */
  end(reason?: string | null): void
}

/** Steps in the map of advantages while the run goes on: bounds the size of an update. */
const MAP_STEPS = 30

/** Charts of one run under the running cell. */
export function liveRun(options: LiveRunOptions = {}): LiveRun {
  return new LiveDisplay(options)
}

class LiveDisplay implements LiveRun {
  private readonly records: StepRecord[] = []
  private readonly validation: ValidationPoint[] = []
  private readonly slots: Slots
  private readonly pace = new Pace(() => this.draw())
  private activity = ''
  private ended: string | null | undefined
  private chartsDirty = false

  constructor(private readonly options: LiveRunOptions) {
    this.slots = new Slots('live', options.host)
    if (options.notes?.length) this.slots.put('notes', notesBundle(options.notes))
    this.pace.ask()
  }

  update(record: StepRecord): void {
    this.records.push(record)
    this.activity = ''
    this.chartsDirty = true
    this.pace.ask()
  }

  validated(point: ValidationPoint): void {
    this.validation.push(point)
    this.activity = ''
    this.chartsDirty = true
    this.pace.ask()
  }

  progress(text: string): void {
    this.activity = text
    this.pace.ask()
  }

  end(reason: string | null = null): void {
    this.ended = reason
    this.activity = ''
    this.chartsDirty = this.records.length + this.validation.length > 0
    this.pace.end()
  }

  private draw(): void {
    if (!this.slots.seen) return
    const live = this.ended === undefined
    this.slots.put('status', this.status())
    if (!this.chartsDirty || !this.slots.charts) return
    this.chartsDirty = false
    const title = this.options.title ?? 'Reward'
    const curve = rewardCurve({ records: this.records, validation: this.validation }, { title })
    this.slots.chart('reward', curve, live)
    if (this.records.length === 0) return
    this.slots.chart('groups', groupAdvantages(live ? this.records.slice(-MAP_STEPS) : this.records), live)
  }

  private status(): MimeBundle {
    const line = statusLine(this.records, {
      ...this.options,
      activity: this.activity,
      ended: this.ended,
      validation: this.validation,
    })
    const remarks = diagnose(this.records).slice(0, 2)
    const told = remarks
      .map(({ level, text }) => `<div>${level === 'warning' ? '<b>⚠ </b>' : ''}${escapeHtml(text)}</div>`)
      .join('')
    const done = this.options.totalSteps ? Math.min(1, this.records.length / this.options.totalSteps) : 0
    const html = `<div style="font-variant-numeric:tabular-nums"><div><b>${escapeHtml(line)}</b></div>${progressBar(done)}<div style="opacity:.8">${told}</div></div>`
    return { 'text/html': html, 'text/plain': [line, ...remarks.map(({ text }) => text)].join('\n') }
  }
}

interface Situation extends LiveRunOptions {
  readonly activity: string
  /** undefined while it runs, null after success, else why it failed. */
  readonly ended: string | null | undefined
  readonly validation: readonly ValidationPoint[]
}

/** step 3/12 · reward −0.66 → −0.12 · validation 41.0 % · 21 s a step · 3 min left */
export function statusLine(records: readonly StepRecord[], { totalSteps, activity, ended, validation }: Situation): string {
  const [first, last] = [records[0], records.at(-1)]
  const parts = [last ? `step ${last.step}${totalSteps ? `/${totalSteps}` : ''}` : 'before the first step']
  if (first && last)
    parts.push(records.length > 1 ? `reward ${signed(first.reward)} → ${signed(last.reward)}` : `reward ${signed(last.reward)}`)
  const score = validation.at(-1)?.score
  if (score !== undefined) parts.push(`validation ${score.toFixed(1)} %`)
  const seconds = secondsPerStep(records)
  if (seconds !== null) parts.push(`${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s a step`)
  if (ended === null) parts.push('done')
  else if (ended !== undefined) parts.push(`stopped: ${ended}`)
  else if (seconds !== null && last && totalSteps && totalSteps > last.step)
    parts.push(`${timeLeft(seconds * (totalSteps - last.step))} left`)
  if (activity !== '') parts.push(activity)
  return parts.join(' · ')
}

/** Median of the newest steps, so that one validation does not change the estimate. */
function secondsPerStep(records: readonly StepRecord[]): number | null {
  const times = records.slice(-9).map(({ seconds_train, seconds_between }) => seconds_train + seconds_between)
  return times.length === 0 ? null : times.sort((a, b) => a - b)[Math.floor(times.length / 2)]!
}

export function progressBar(share: number): string {
  const fill = `<div style="width:${(100 * share).toFixed(1)}%;height:100%;border-radius:2px;background:#2f86c9"></div>`
  return `<div style="height:4px;border-radius:2px;background:rgba(128,136,144,.25);margin:.45em 0;max-width:100%">${fill}</div>`
}

/** 42 s, 3 min. */
export function timeLeft(seconds: number): string {
  return seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`
}

function signed(value: number): string {
  return value.toFixed(2).replace('-', '−')
}

function notesBundle(notes: readonly string[]): MimeBundle {
  const lines = notes.map((text) => `<div>${escapeHtml(text)}</div>`).join('')
  return { 'text/html': `<div style="opacity:.75;font-size:.9em">${lines}</div>`, 'text/plain': notes.join('\n') }
}
