// A run in a few numbers.

import { nearestName, OptionError } from '../errors'
import type { RunKind, RunState, StepRow, StoredRun } from './stored-run'

/** How a measure went. Null where no step has it, or where neither more nor less of it is better. */
export interface Course {
  readonly first: number | null
  readonly last: number | null
  readonly best: number | null
}

export interface RunSummary {
  readonly id: string
  readonly kind: RunKind
  readonly model: string
  readonly state: RunState
  readonly created: number // unix seconds
  readonly steps: number
  /** Of its updates and what lay between them. */
  readonly seconds: number
  readonly measure: string
  readonly first: number | null
  readonly last: number | null
  readonly best: number | null
  /** Percent; null where nothing was validated. */
  readonly best_validation: number | null
}

/** What gets better by growing, and by falling. A policy's loss is neither. */
const BETTER: Readonly<Record<RunKind, Readonly<Record<string, (a: number, b: number) => number>>>> = {
  grpo: { reward: Math.max, validation_score: Math.max, format_failures: Math.min, truncated_share: Math.min },
  'fine-tuning': { loss: Math.min },
}

/** What a run of this kind is judged by. */
export function mainMeasure(kind: RunKind): string {
  return kind === 'grpo' ? 'reward' : 'loss'
}

export function summarize(run: StoredRun, measure = mainMeasure(run.kind)): RunSummary {
  const { id, kind, model, state, created, steps } = run
  const { first, last, best } = courseOf(run, measure)
  const scores = run.validations().map(({ score }) => score)
  return {
    id,
    kind,
    model,
    state,
    created,
    steps: steps.length,
    seconds: steps.reduce((sum, step) => sum + secondsOf(step), 0),
    measure,
    first,
    last,
    best,
    best_validation: scores.length === 0 ? null : Math.max(...scores),
  }
}

export function values(steps: readonly StepRow[], measure: string): (number | null)[] {
  return steps.map((step) => step[measure] ?? null)
}

export function courseOf({ kind, steps }: StoredRun, measure: string): Course {
  const known = values(steps, measure).filter((value): value is number => value !== null)
  if (known.length === 0) return { first: null, last: null, best: null }
  const better = BETTER[kind][measure]
  return { first: known[0]!, last: known.at(-1)!, best: better ? known.reduce((a, b) => better(a, b)) : null }
}

/** @throws OptionError with the nearest name when no run has the measure */
export function checkMeasure(runs: readonly StoredRun[], measure: string): void {
  const known = [...new Set(runs.flatMap(({ steps }) => steps.flatMap(Object.keys)))]
  if (known.includes(measure) || known.length === 0) return
  const near = nearestName(measure, known)
  throw new OptionError(`No step has "${measure}".${near ? ` Did you mean "${near}"?` : ''} There are: ${known.join(', ')}.`)
}

function secondsOf(step: StepRow): number {
  return (step['seconds_train'] ?? step['seconds'] ?? 0) + (step['seconds_between'] ?? 0)
}
