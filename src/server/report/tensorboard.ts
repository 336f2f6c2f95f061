// TensorBoard: scalars, the options and tables of completions as text, in one event file of the run's folder.

import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { COMPLETION_COLUMNS, type CompletionRow, type ReportedStep } from './reported-step'
import { type ReportedRun, type Reporter, showsCompletions } from './reporter'
import { EventFile, scalars, text } from './tensorboard-log'

const PREFIX = 'events.out.tfevents.'

export class TensorBoardReporter implements Reporter {
  private run!: ReportedRun
  private file!: EventFile

  /**
   * A resumed run's file is written anew, from the steps that count, under a later name: a TensorBoard that has the run open goes on with
   * it, where a file that shrank would confuse it.
   */
  open(run: ReportedRun, before: () => readonly ReportedStep[]): void {
    this.run = run
    const dir = join(run.folder, 'tensorboard')
    mkdirSync(dir, { recursive: true })
    const old = readdirSync(dir).filter((name) => name.startsWith(PREFIX))
    const count = Math.max(-1, ...old.map((name) => Number(name.split('.').at(-1)))) + 1
    const host = hostname().replace(/[^A-Za-z0-9_-]+/g, '-')
    const path = join(dir, `${PREFIX}${Math.floor(Date.now() / 1000)}.${host}.${process.pid}.${count}`)
    const config = text(run.started, 0, 'config', codeBlock(JSON.stringify(run.config, null, 2)))
    this.file = EventFile.create(path, [config, ...before().flatMap((step) => this.events(step))])
    for (const name of old) rmSync(join(dir, name))
  }

  step(step: ReportedStep): void {
    this.file.append(this.events(step))
  }

  private events(step: ReportedStep): Buffer[] {
    const numbers = scalars(step.time, step.step, step.metrics)
    if (!showsCompletions(this.run, step)) return [numbers]
    return [numbers, text(step.time, step.step, 'completions', markdownTable(step.completions))]
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
    .replace(/[&<>]|[\\`*_{}[\]()#+.!|~-]/g, (letter) => ('&<>'.includes(letter) ? `&#${letter.charCodeAt(0)};` : `\\${letter}`))
    .replace(/\r\n|\r|\n/g, '<br>')
}
