// Draws what the program layer and the optimizers report: a bar for an evaluation, live charts for a training run.

import type { StepRecord } from '../protocol'
import { Bar, barText } from './bars'
import type { ScoredCandidate } from './candidate-scores'
import { type LiveRun, liveRun } from './live'
import { LiveLoss, type TrainedStep } from './live-loss'
import { LiveSearch } from './live-search'
import type { ValidationPoint } from './reward-curve'
import { toldTogether } from './together'

/** The shape of program/context.ts' ProgressEvent. */
export interface ProgressLike {
  readonly kind: string
  readonly id: string
  readonly title: string
  readonly done: number
  /** 0: not known. */
  readonly total: number
  readonly note?: string
  readonly payload?: unknown
}

interface RunPayload {
  readonly notes?: readonly string[]
  readonly record?: StepRecord
  readonly validation?: ValidationPoint
  readonly rollouts?: { readonly step: number; readonly done: number; readonly of: number }
  readonly reason?: string | null
}

interface SearchPayload {
  readonly candidate?: ScoredCandidate
  readonly activity?: string
  readonly note?: string
  readonly reason?: string | null
}

interface LossPayload {
  readonly step?: TrainedStep
  readonly activity?: string
  readonly reason?: string | null
}

const live = new Map<string, LiveRun | LiveSearch | LiveLoss>()
const bars = new Map<string, Bar>()

/** Registered as the observer of progress (src/index.ts). Shows nothing where there is no notebook. */
export function drawProgress(event: ProgressLike): void {
  const [activity, phase] = event.kind.split(':')
  const { record } = (activity === 'grpo' ? (event.payload ?? {}) : {}) as RunPayload
  const report = activity === 'grpo' ? { record } : { activity: barText(event) }
  if (toldTogether({ done: event.done, total: event.total, ...report })) return
  if (activity === 'grpo') drawRun(event, phase ?? '')
  else if (activity === 'optimize') drawSearch(event, phase ?? '')
  else if (activity === 'finetune') drawLoss(event, phase ?? '')
  else if (live.size > 0) [...live.values()].at(-1)!.progress(barText(event))
  else drawBar(event, phase ?? '')
}

function drawRun({ id, title, total, payload }: ProgressLike, phase: string): void {
  const { notes = [], record, validation, rollouts, reason } = (payload ?? {}) as RunPayload
  let run = live.get(id) as LiveRun | undefined
  if (!run) live.set(id, (run = liveRun({ title: `${title}: reward`, notes, ...(total > 0 ? { totalSteps: total } : {}) })))
  if (record) run.update(record)
  if (validation) run.validated(validation)
  if (rollouts)
    run.progress(
      `step ${rollouts.step}: ${rollouts.done === rollouts.of ? 'training' : `rollout ${rollouts.done}/${rollouts.of}`}`,
    )
  if (phase !== 'end') return
  run.end(reason ?? null)
  live.delete(id)
}

function drawSearch({ id, title, total, payload }: ProgressLike, phase: string): void {
  const { candidate, activity, note, reason } = (payload ?? {}) as SearchPayload
  let search = live.get(id) as LiveSearch | undefined
  if (!search) live.set(id, (search = new LiveSearch({ title })))
  if (candidate) search.update(candidate, total)
  if (activity) search.progress(activity)
  if (note) search.note(note)
  if (phase !== 'end') return
  search.end(reason ?? null)
  live.delete(id)
}

function drawLoss({ id, title, payload }: ProgressLike, phase: string): void {
  const { step, activity, reason } = (payload ?? {}) as LossPayload
  let loss = live.get(id) as LiveLoss | undefined
  if (!loss) live.set(id, (loss = new LiveLoss({ title })))
  if (step) loss.update(step)
  if (activity) loss.progress(activity)
  if (phase !== 'end') return
  loss.end(reason ?? null)
  live.delete(id)
}

function drawBar({ id, title, done, total, note }: ProgressLike, phase: string): void {
  const state = { title, done, total, ...(note === undefined ? {} : { note }) }
  const bar = bars.get(id) ?? new Bar(state)
  bars.set(id, bar)
  if (phase === 'end') {
    bar.end(state)
    bars.delete(id)
  } else bar.set(state)
}
