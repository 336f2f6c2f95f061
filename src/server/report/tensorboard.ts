// TensorBoard: scalars, the options and tables of completions as text, in one event file of the run's folder.

import { mkdirSync, readdirSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { COMPLETION_COLUMNS, type CompletionRow, type ReportedStep } from './reported-step'
import { type ReportedRun, type Reporter, showsCompletions } from './reporter'
import { EventFile, scalars, text } from './tensorboard-log'

export class TensorBoardReporter implements Reporter {
  private run!: ReportedRun
  private file!: EventFile

  /** A resumed run goes on in its file; one that is reported for the first time brings its earlier steps along. */
  open(run: ReportedRun, before: readonly ReportedStep[]): void {
    this.run = run
    const dir = join(run.folder, 'tensorboard')
    mkdirSync(dir, { recursive: true })
    const known = readdirSync(dir).find((name) => name.startsWith('events.out.tfevents.'))
    if (known !== undefined) {
      this.file = EventFile.resume(join(dir, known), (before.at(-1)?.step ?? 0) + 1)
      return
    }
    const host = hostname().replace(/[^A-Za-z0-9_-]+/g, '-')
    this.file = EventFile.create(join(dir, `events.out.tfevents.${Math.floor(run.started)}.${host}.${process.pid}.0`))
    this.file.append([text(run.started, 0, 'config', codeBlock(JSON.stringify(run.config, null, 2)))])
    for (const step of before) this.step(step)
  }

  step(step: ReportedStep): void {
    const events = [scalars(step.time, step.step, step.metrics)]
    if (showsCompletions(this.run, step)) events.push(text(step.time, step.step, 'completions', markdownTable(step.completions)))
    this.file.append(events)
  }

  /** An event file has no end. */
  end(): undefined {
    return undefined
  }
}

/** Markdown takes what is indented as it stands. */
function codeBlock(value: string): string {
  return value
    .split('\n')
    .map((line) => `    ${line}`)
    .join('\n')
}

function markdownTable(rows: readonly CompletionRow[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  const body = rows.map((row) => line(COMPLETION_COLUMNS.map((column) => escapeMarkdown(String(row[column])))))
  return [line(COMPLETION_COLUMNS), line(COMPLETION_COLUMNS.map(() => '---')), ...body].join('\n')
}

/** What people and models write stays text: no HTML, no Markdown, no end of the row. */
function escapeMarkdown(value: string): string {
  return value
    .replace(/[&<>]/g, (letter) => `&#${letter.charCodeAt(0)};`)
    .replace(/[\\`*_{}[\]()#+.!|~-]/g, (letter) => `\\${letter}`)
    .replace(/\r\n|\r|\n/g, '<br>')
}
