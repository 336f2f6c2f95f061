// status.json in the run's folder: whether it runs, how it ended. Whoever lists runs reads it.

import { join } from 'node:path'
import { writeJson } from '../../engine/whole-file'
import type { ReportedRun, Reporter, RunEnd } from './reporter'

export class StatusReporter implements Reporter {
  private run!: ReportedRun

  open(run: ReportedRun): void {
    this.run = run
    this.write('running', null)
  }

  /** The steps are in steps.jsonl. */
  step(): void {}

  end(how: RunEnd, reason: string | null): undefined {
    this.write(how, reason)
    return undefined
  }

  /** The process's id tells a run that goes on from one whose server died. */
  private write(status: 'running' | RunEnd, reason: string | null): void {
    const { started, folder } = this.run
    writeJson(join(folder, 'status.json'), { status, reason, pid: process.pid, started, updated: Date.now() / 1000 })
  }
}
