// An optimizer while it searches: a status line, and the scores of the candidates so far. Each is one output that is replaced.

import { bestCandidate, candidateScores, type ScoredCandidate } from './candidate-scores'
import { progressBar, timeLeft } from './live'
import { type DisplayHost, escapeHtml, type MimeBundle, shorten } from './mime'
import { Pace } from './pace'
import { Slots } from './slots'
import { toldElsewhere } from './warnings'

export interface LiveSearchOptions {
  /** The optimizer's name. */
  readonly title: string
  /** null: nothing is shown. Default: the notebook we run in. */
  readonly host?: DisplayHost | null
}

/** Candidates after which the time left is guessed. */
const GUESS_AFTER = 3
/** Characters of a warning. */
const NOTE_TEXT = 240
/** More warnings than this are folded. */
const OPEN_NOTES = 2
/** More are only counted. */
const MOST_NOTES = 20

export class LiveSearch {
  private readonly candidates: ScoredCandidate[] = []
  private readonly slots: Slots
  private readonly pace = new Pace(() => this.draw())
  private readonly notes: string[] = []
  private uncited = 0
  private total = 0
  private activity = ''
  private ended: string | null | undefined
  private dirty = false

  constructor(private readonly options: LiveSearchOptions) {
    this.slots = new Slots('search', options.host)
    this.pace.ask()
  }

  /** A candidate was scored; `total` are to come in all, 0 when nobody knows. */
  update(candidate: ScoredCandidate, total: number): void {
    this.candidates.push(candidate)
    this.total = total
    this.activity = ''
    this.dirty = true
    this.pace.ask()
  }

  /** What is going on between two candidates, in a few words. */
  progress(text: string): void {
    this.activity = text
    this.pace.ask()
  }

  /** A warning, shown until the end and after it. */
  note(text: string): void {
    if (this.notes.length < MOST_NOTES) this.notes.push(text)
    else this.uncited++
    toldElsewhere(text)
    this.pace.ask()
  }

  /** Draws the last state; `reason` when the search failed or was interrupted. */
  end(reason: string | null = null): void {
    this.ended = reason
    this.activity = ''
    this.dirty = this.candidates.length > 0
    this.pace.end()
  }

  private draw(): void {
    this.slots.put('status', this.status())
    if (!this.dirty) return
    this.dirty = false
    const { title } = this.options
    const figure = candidateScores(this.candidates, { title: `${title}: candidate scores`, total: this.total })
    this.slots.chart('scores', figure, this.ended === undefined)
  }

  private status(): MimeBundle {
    const { activity, ended, total } = this
    const line = searchLine(this.candidates, { title: this.options.title, total, activity, ended })
    const done = ended === null ? 1 : total > 0 ? Math.min(1, this.candidates.length / total) : 0
    const notes = `<div style="opacity:.75;font-size:.9em">${notesHtml(this.notes, this.uncited)}</div>`
    const html = `<div style="font-variant-numeric:tabular-nums"><b>${escapeHtml(line)}</b>${progressBar(done)}${notes}</div>`
    return { 'text/html': html, 'text/plain': [line, ...this.notes].join('\n') }
  }
}

function notesHtml(notes: readonly string[], uncited: number): string {
  const all = notes.map((text) => `<div>${escapeHtml(shorten(text, NOTE_TEXT))}</div>`).join('')
  if (notes.length <= OPEN_NOTES) return all
  const count = `${notes.length + uncited} warnings${uncited > 0 ? `, the first ${notes.length} of them` : ''}`
  return `<details><summary>${count}</summary>${all}</details>`
}

interface Situation {
  readonly title: string
  readonly total: number
  readonly activity: string
  /** undefined while it runs, null after success, else why it ended. */
  readonly ended: string | null | undefined
}

/** BootstrapRS: candidate 5/19 · best 72.0 % (seed 1) · 812 calls · 96.4 k tokens · 2 min left · seed 2: 34/100 */
export function searchLine(candidates: readonly ScoredCandidate[], { title, total, activity, ended }: Situation): string {
  const best = bestCandidate(candidates)
  const spent = candidates.at(-1)?.spent
  const parts = [`${title}: candidate ${candidates.length}${total > 0 ? `/${total}` : ''}`]
  if (best) parts.push(`best ${best.score.toFixed(1)} % (${best.label})`)
  if (spent) parts.push(`${short(spent.lmCalls)} calls`, `${short(spent.promptTokens + spent.completionTokens)} tokens`)
  if (ended === null) parts.push(spent ? `done in ${timeLeft(spent.seconds)}` : 'done')
  else if (ended !== undefined) parts.push(`stopped: ${ended}`)
  else if (spent && candidates.length >= GUESS_AFTER && total > candidates.length)
    parts.push(`${timeLeft((spent.seconds / candidates.length) * (total - candidates.length))} left`)
  if (activity !== '') parts.push(activity)
  return parts.join(' · ')
}

/** 812, 96.4 k, 1.2 M. */
function short(count: number): string {
  if (count < 1000) return String(count)
  return count < 1e6 ? `${(count / 1e3).toFixed(1)} k` : `${(count / 1e6).toFixed(1)} M`
}
