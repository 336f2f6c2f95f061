// arbor-nb runs: what was trained, in a terminal or as JSON.

import { arborHome } from '../engine/arbor-home'
import { OptionError } from '../errors'
import { differences } from '../runs/differences'
import { findRuns, runNamed } from '../runs/find-runs'
import { checkMeasure, summarize } from '../runs/run-summary'
import { StoredRun } from '../runs/stored-run'
import { choiceOption, numberOption, parseOptions } from './options'
import { compareText, listText, showText } from './runs-text'

export const help = `Usage: arbor-nb runs [list] [options]
       arbor-nb runs show RUN [options]
       arbor-nb runs compare RUN RUN ... [options]

Lists the runs of a storage, the newest first; shows one: its options, how it went, its checkpoints and files; or sets several side by side.
RUN is a run's id, a part of it that no other id has, or "last".

  --storage FOLDER  where runs are kept (default: $ARBOR_HOME, else ~/.arbor)
  --measure NAME    a number of the steps (default: reward; of fine-tuning runs: loss)
  --limit N         of the list: so many runs; of a run: so many steps (default 20 and 12; 0: all)
  --json            one JSON value for programs
  -h, --help        this text`

const OPTIONS = {
  storage: { type: 'string' },
  measure: { type: 'string' },
  limit: { type: 'string' },
  json: { type: 'boolean' },
} as const

export async function run(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parseOptions(argv, OPTIONS, ['[list|show|compare]', '[RUN...]'])
  const action = choiceOption(positionals[0] ?? 'list', 'runs', ['list', 'show', 'compare'])
  const storage = values.storage ?? arborHome()
  const limit = numberOption(values.limit, '--limit', { min: 0, integer: true })
  const { runs, unreadable } = findRuns(storage, (folder) => new StoredRun(folder))
  for (const problem of unreadable) process.stderr.write(`${problem}\n`)
  const named = positionals.slice(1).map((name) => runNamed(runs, name, storage))
  checkCount(action, named.length)
  const chosen = action === 'list' ? runs : named
  if (values.measure !== undefined) checkMeasure(chosen, values.measure)
  const told = { storage, measure: values.measure, limit }
  if (values.json) process.stdout.write(`${JSON.stringify(asJson(action, chosen, told), null, 2)}\n`)
  else process.stdout.write(asText(action, chosen, told))
  return 0
}

type Action = 'list' | 'show' | 'compare'
interface Told {
  readonly storage: string
  readonly measure: string | undefined
  readonly limit: number | undefined
}

function checkCount(action: Action, count: number): void {
  if (action === 'list' && count > 0) throw new OptionError('arbor-nb runs list takes no run. Did you mean show?')
  if (action === 'show' && count !== 1) throw new OptionError('arbor-nb runs show takes one run: an id, a part of it, or "last".')
  if (action === 'compare' && count < 2) throw new OptionError('arbor-nb runs compare takes two runs or more.')
}

function asText(action: Action, runs: readonly StoredRun[], { storage, measure, limit }: Told): string {
  if (action === 'list') return listText(runs, storage, { measure, limit: limit ?? 20 })
  if (action === 'compare') return compareText(runs, measure)
  return showText(runs[0]!, { measure, limit: limit ?? 12 })
}

/** Whole, where a limit isn't asked for. */
function asJson(action: Action, runs: readonly StoredRun[], { measure, limit }: Told): unknown {
  const shown = <T>(all: readonly T[]) => (limit === undefined || limit === 0 ? all : all.slice(0, limit))
  if (action === 'list') return shown(runs).map((run) => ({ ...summarize(run, measure), folder: run.folder }))
  if (action === 'compare') return { runs: runs.map((run) => summarize(run, measure)), differences: differences(runs) }
  const run = runs[0]!
  return {
    ...summarize(run, measure),
    reason: run.reason,
    folder: run.folder,
    reports: run.reports(),
    options: run.options,
    environment: run.environment,
    checkpoints: run.checkpoints(),
    steps: shown(run.steps),
  }
}
