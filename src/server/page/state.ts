// What the page knows. Whoever changes it says so; the page is drawn anew a few times a second at most, and not at all while it is hidden.

import type { FineTuningStep, Health, JobDetail, JobSummary, RolloutGroup, StepRecord } from '../../protocol'

export interface State {
  /** Why the last question was not answered; null when it was. */
  problem: string | null
  /** The answers of /health, oldest first. */
  health: readonly Health[]
  /** Names that chat requests may ask for. */
  models: readonly string[]
  /** Newest first; null before the first answer. */
  jobs: readonly JobSummary[] | null

  /** The job that is shown. */
  job: string | null
  /** Whether a person chose it; else it is the newest that runs. */
  chosen: boolean
  detail: JobDetail | null
  /** Counts what records and losses were begun anew. */
  generation: number
  /** Of a GRPO job, without texts. */
  records: StepRecord[]
  /** Of a fine-tuning job. */
  losses: readonly FineTuningStep[]

  /** The step that a person reads; null: the newest. */
  step: number | null
  /** The step that a person just turned to, until its rollouts are there. */
  turning: number | null
  /** Where the pointer is in a chart. */
  hover: number | null
  /** The groups that are read, with texts. */
  rollouts: { readonly step: number; readonly groups: readonly RolloutGroup[] } | null
  /** Which of them; null: the one with most to tell. */
  group: number | null
  /** Whose groups are listed; '' for all. */
  predictor: string
  /** Completions that are shown whole. */
  readonly unfolded: Set<string>
  /** Somebody points at or is in the texts: they stay. */
  reading: boolean

  theme: 'auto' | 'light' | 'dark'
  /** What was copied last, for a word at the button. */
  copied: string
}

export const state: State = {
  problem: null,
  health: [],
  models: [],
  jobs: null,
  job: null,
  chosen: false,
  detail: null,
  generation: 0,
  records: [],
  losses: [],
  step: null,
  turning: null,
  hover: null,
  rollouts: null,
  group: null,
  predictor: '',
  unfolded: new Set(),
  reading: false,
  theme: 'auto',
  copied: '',
}

/** Pixels that a figure across the page has. */
export const size = { width: 800 }

/** The step whose rollouts are shown, or will be. */
export function shownStep(): number | null {
  return state.turning ?? state.step ?? state.rollouts?.step ?? state.records.at(-1)?.step ?? null
}

/** Updates of the job so far: its stream is ahead of the list. */
export function stepsMade(job: JobSummary): number {
  const streamed = state.records.at(-1)?.step ?? state.losses.at(-1)?.step ?? 0
  return job.id === state.job ? Math.max(job.step, streamed) : job.step
}

const EVERY_MS = 200
let asked = false
let drawn = 0
let draw: () => void = () => {}

export function onChange(render: () => void): void {
  draw = render
  document.addEventListener('visibilitychange', () => changed())
}

/** Draws soon; `now` where a person did something. */
export function changed({ now = false } = {}): void {
  if (asked && !now) return
  asked = true
  const wait = now ? 0 : Math.max(0, drawn + EVERY_MS - performance.now())
  setTimeout(() => requestAnimationFrame(paint), wait)
}

function paint(): void {
  if (!asked || document.hidden) return
  asked = false
  drawn = performance.now()
  draw()
}
