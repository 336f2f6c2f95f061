// What a job tells of itself: `report_to` read, its steps in the words of the reporters.

import { nearestName, OptionError } from '../../errors'
import type { FineTuningStep, StepRecord, TrainerConfig } from '../../protocol'
import type { RolloutLine } from '../step-record'
import { GrpoSteps, reportedUpdate, validation } from './reported-step'
import type { ReportedRun, Reporter, RunEnd } from './reporter'
import { Reports } from './reports'
import { StatusReporter } from './status'
import { TensorBoardReporter } from './tensorboard'
import { WandbReporter } from './wandb'

const NAMES = ['wandb', 'tensorboard'] as const
export type ReporterName = (typeof NAMES)[number]

/**
 * What `report_to` names: 'none', 'all', one place or a list.
 * @throws OptionError for a place that we don't write to
 */
export function reporterNames(wish: string | readonly string[]): ReporterName[] {
  const wishes = typeof wish === 'string' ? [wish] : wish
  for (const name of wishes) {
    const known = ['none', 'all', ...NAMES]
    if (known.includes(name)) continue
    const near = nearestName(name, known)
    throw new OptionError(
      `report_to names "${name}"; runs are reported to wandb and tensorboard.${near ? ` Did you mean "${near}"?` : ' "none" reports nowhere; the run\'s folder holds every step either way.'}`,
    )
  }
  return NAMES.filter((name) => wishes.includes(name) || wishes.includes('all'))
}

type RunFacts = Omit<ReportedRun, 'completionsEvery'> & {
  readonly reportTo: string | readonly string[]
  readonly say: (line: string) => void
}

interface StepsBefore {
  readonly records: readonly StepRecord[]
  readonly lines: () => readonly RolloutLine[]
}

/** Of one GRPO job. */
export class GrpoReports {
  private readonly steps: GrpoSteps
  private readonly reports: Reports
  private latest: { readonly step: number; readonly score: number } | null = null

  /** @param before what a resumed run has already: its records, and the lines of its rollouts */
  constructor(facts: RunFacts, config: TrainerConfig, { records, lines }: StepsBefore) {
    const told = () => {
      const steps = new GrpoSteps(config.loss_type)
      const all = lines()
      return records.flatMap((record) =>
        steps.reported(
          record,
          all.filter((line) => line.step === record.step),
        ),
      )
    }
    this.steps = new GrpoSteps(config.loss_type, records)
    this.reports = new Reports(setup(facts, completionsEvery(config)), told)
  }

  /** Answers warnings for the step's record. */
  step(record: StepRecord, lines: readonly RolloutLine[]): string[] {
    this.latest = null // what the record says of validation is the same
    for (const step of this.steps.reported(record, lines)) this.reports.step(step)
    return this.reports.takeWarnings()
  }

  /** A client saves what it has just validated; its next step brings the score as well, but after the last step there is none. */
  checkpointed(step: number, metadata: Readonly<Record<string, unknown>> | null): void {
    const score = metadata?.['score']
    if (typeof score === 'number') this.latest = { step, score }
  }

  end(how: RunEnd, reason: string | null): void {
    if (this.latest) this.reports.step(validation(this.latest.step, this.latest.score, Date.now() / 1000))
    this.latest = null
    this.reports.end(how, reason)
  }

  finished(ms: number): Promise<void> {
    return this.reports.finished(ms)
  }
}

/** Of one fine-tuning job. */
export class TuningReports {
  private readonly reports: Reports
  private tokens = 0

  constructor(facts: RunFacts) {
    this.reports = new Reports(setup(facts, null))
  }

  /** Answers warnings for the job's events. */
  step(update: FineTuningStep): string[] {
    this.tokens += update.tokens
    this.reports.step(reportedUpdate(update, this.tokens))
    return this.reports.takeWarnings()
  }

  end(how: RunEnd, reason: string | null): void {
    this.reports.end(how, reason)
  }

  finished(ms: number): Promise<void> {
    return this.reports.finished(ms)
  }
}

function setup({ reportTo, say, ...run }: RunFacts, every: number | null): ConstructorParameters<typeof Reports>[0] {
  const made: Record<ReporterName, () => Reporter> = {
    wandb: () => new WandbReporter(say),
    tensorboard: () => new TensorBoardReporter(),
  }
  const off = process.env['WANDB_MODE'] === 'disabled'
  const names = reporterNames(reportTo).filter((name) => name !== 'wandb' || !off)
  const reporters = { 'status.json': new StatusReporter(), ...Object.fromEntries(names.map((name) => [name, made[name]()])) }
  return { reporters, run: { ...run, completionsEvery: every }, say }
}

/** logging_steps spaces out the tables of completions; below 1 it is a share of all steps, as in transformers. */
function completionsEvery({ log_completions: wanted, logging_steps: steps, max_steps: all }: TrainerConfig): number | null {
  return wanted ? Math.max(1, Math.round(steps < 1 ? steps * all : steps)) : null
}
