// All places where one run is reported. What goes wrong with one of them is told once and costs the training nothing.

import type { ReportedStep } from './reported-step'
import type { ReportedRun, Reporter, RunEnd } from './reporter'

/** What a server that ends waits for the uploads of finished runs. */
export const UPLOAD_MS = 20_000

export interface ReportsSetup {
  /** By the name that a warning says. */
  readonly reporters: Readonly<Record<string, Reporter>>
  readonly run: ReportedRun
  /** Hears what goes wrong, and where the finished reports are. */
  readonly say: (line: string) => void
}

export class Reports {
  private readonly open = new Map<string, Reporter>()
  private warnings: string[] = []
  private after: Promise<unknown> = Promise.resolve()
  private readonly cut = new AbortController()

  /** @param before the steps that a resumed run has already, made for those who ask */
  constructor(
    private readonly setup: ReportsSetup,
    before: () => readonly ReportedStep[] = () => [],
  ) {
    for (const [name, reporter] of Object.entries(setup.reporters)) {
      this.open.set(name, reporter)
      this.try(name, () => reporter.open(setup.run, before))
    }
  }

  step(step: ReportedStep): void {
    for (const [name, reporter] of this.open) this.try(name, () => reporter.step(step))
  }

  /** Ends every report; a second call changes nothing. */
  end(how: RunEnd, reason: string | null): void {
    for (const [name, reporter] of this.open)
      this.try(name, () => {
        this.after = Promise.all([this.after, reporter.end(how, reason, this.cut.signal)])
      })
    this.open.clear()
  }

  /** Resolves when what follows a run's end (an upload) is done; after `ms` it is cut off. */
  async finished(ms: number): Promise<void> {
    const timer = setTimeout(() => this.cut.abort(), ms)
    await this.after
    clearTimeout(timer)
  }

  /** What has to be told and was not yet. */
  takeWarnings(): string[] {
    const { warnings } = this
    this.warnings = []
    return warnings
  }

  private try(name: string, work: () => void): void {
    try {
      work()
    } catch (error) {
      this.open.delete(name)
      const reason = error instanceof Error ? error.message : String(error)
      const warning = `Reporting to ${name} failed and has ended: ${reason}. The training goes on; the run's folder holds every step.`
      this.warnings.push(warning)
      this.setup.say(`${this.setup.run.id}: ${warning}`)
    }
  }
}
