// What a place where runs are shown has to be able to do. A reporter may throw: whoever tells it (reports.ts) goes on without it.

import type { ReportedStep } from './reported-step'

export interface ReportedRun {
  /** The job's id, which is also what people call the run. */
  readonly id: string
  /** The run's own folder. */
  readonly folder: string
  readonly started: number // unix seconds
  /** Options and model, flat, as they are shown beside the charts. */
  readonly config: Readonly<Record<string, unknown>>
  /** Steps from one table of completions to the next; null: none are wanted. */
  readonly completionsEvery: number | null
}

/** How a run ended; an interrupted one may be resumed. */
export type RunEnd = 'succeeded' | 'failed' | 'cancelled' | 'interrupted'

export interface Reporter {
  /** Called once; `before` makes the steps that a resumed run has already. */
  open(run: ReportedRun, before: () => readonly ReportedStep[]): void
  step(step: ReportedStep): void
  /** The answer is what goes on behind the run's end, until `signal` aborts. */
  end(how: RunEnd, reason: string | null, signal: AbortSignal): Promise<void> | undefined
}

/** Whether this step's completions are shown: the first one's, and then one every so many. */
export function showsCompletions({ completionsEvery: every }: ReportedRun, { step, completions }: ReportedStep): boolean {
  return every !== null && completions.length > 0 && (step === 1 || step % every === 0)
}
