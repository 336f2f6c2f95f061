// Runs in a notebook: steps as a data frame, a plot of one or several, a table of all.

import { curves, type DataFrame, type Figure, frame, type MimeBundle, rewardCurve, table } from '../display'
import { DISPLAY } from '../display/mime'
import { OptionError } from '../errors'
import { findRuns, runNamed } from './find-runs'
import { checkMeasure, mainMeasure, type RunSummary, summarize, values } from './run-summary'
import { type StepRow, StoredRun } from './stored-run'

export interface RunPlotOptions {
  /** A column of the steps; default: reward, or loss of fine-tuning runs. */
  readonly measure?: string
  readonly title?: string
  /** Steps in a running mean. Default 5. */
  readonly smooth?: number
}

/** A run as it lies on disk. As a cell's last line it shows its course. */
export class Run extends StoredRun {
  /** A row a step, as a danfojs DataFrame. @throws ArborError, with what to install, where danfojs-node is missing */
  frame(): Promise<DataFrame> {
    return frame(filled(this.steps))
  }

  summary(measure?: string): RunSummary {
    return summarize(this, measure)
  }

  /** A measure over the steps. Without options, of a GRPO run: the reward with its spread and the validations. */
  plot(options?: RunPlotOptions): Figure {
    if (options === undefined && this.kind === 'grpo') {
      const { records, id } = this
      return rewardCurve({ records, validation: this.validations() }, { title: id })
    }
    return compareRuns([this], { smooth: 1, title: this.id, ...options })
  }

  [DISPLAY](): MimeBundle {
    return this.plot()[DISPLAY]()
  }
}

/** Runs, the newest first. As a cell's last line a table. */
export class Runs extends Array<Run> {
  /** Folders that could not be read, with the reasons. */
  readonly unreadable: string[] = []

  static override get [Symbol.species](): ArrayConstructor {
    return Array // what a map makes are no runs
  }

  /** A row a run, as a danfojs DataFrame. @throws ArborError where danfojs-node is missing */
  frame(measure?: string): Promise<DataFrame> {
    return frame(this.map((run) => ({ ...run.summary(measure) })))
  }

  /** One line a run, over the steps. */
  plot(options?: RunPlotOptions): Figure {
    return compareRuns(this, options)
  }

  [DISPLAY](): MimeBundle {
    const rows = this.map((run) => {
      const { created, seconds, ...rest } = run.summary()
      return {
        ...rest,
        seconds: Math.round(seconds),
        started: new Date(created * 1000).toISOString().slice(0, 16).replace('T', ' '),
      }
    })
    const title = this.length === 0 ? 'No runs yet' : `${this.length} ${this.length === 1 ? 'run' : 'runs'}`
    return table(rows, { title, limit: 40 })[DISPLAY]()
  }
}

/** Every row with every column, in one order; danfojs knows a gap as NaN. */
function filled(steps: readonly StepRow[]): StepRow[] {
  const columns = [...new Set(steps.flatMap(Object.keys))]
  return steps.map((step) => Object.fromEntries(columns.map((column) => [column, step[column] ?? Number.NaN])))
}

/** All runs of the folder `storage`. */
export function runsIn(storage: string): Runs {
  const { runs, unreadable } = findRuns(storage, (folder) => new Run(folder))
  const all = Runs.from(runs) as Runs
  all.unreadable.push(...unreadable)
  return all
}

/** One run by its id or a part of it; 'last' is the newest. @throws OptionError when it is none or several */
export function runIn(storage: string, name: string): Run {
  return runNamed(runsIn(storage), name, storage)
}

/** One measure of several runs, a line each. @throws OptionError when none of them has it, or there are no runs */
export function compareRuns(runs: readonly Run[], { measure, title, smooth = 5 }: RunPlotOptions = {}): Figure {
  if (runs.length === 0) throw new OptionError('There are no runs to compare.')
  const chosen = measure ?? mainMeasure(runs[0]!.kind)
  checkMeasure(runs, chosen)
  const lines = runs.map(({ id, steps }) => ({ name: id, y: values(steps, chosen) }))
  return curves(lines, { title: title ?? chosen, smooth })
}
