// arbor-nb run: executes a notebook from the command line and writes it, with its outputs, to a notebook file and a page.

import { basename, dirname, resolve } from 'node:path'
import { PRECISION_WISHES } from '../engine/precision'
import { ChildProcesses } from './child-processes'
import { formatNotebook, type Notebook, readNotebook, writeAtomically } from './notebook'
import { notebookPage } from './notebook-html'
import { injectParameters, parseParameters } from './notebook-parameters'
import { NotebookRunner, type RunOutcome } from './notebook-runner'
import { choiceOption, parseOptions } from './options'
import { RunTerminal, type TerminalStreams } from './run-terminal'

export const help = `Usage: arbor-nb run NOTEBOOK.ipynb [-p name=value]… [-o executed.ipynb] [--html page.html] [--precision P]

Executes the TypeScript cells of a notebook, from the notebook's folder, and keeps the outputs in a copy.

  -p, --param N=V    sets a variable of the cell tagged "parameters" (repeatable); V is JSON, or else text
  -o, --output FILE  the executed notebook          default: NOTEBOOK.executed.ipynb beside the notebook
      --html FILE    also writes a page that needs no network
      --precision P  of frozen weights, for servers that the notebook starts: f32, bf16 or auto
  -h, --help         this text

Exit code: 0 all cells ran, 1 a cell failed (the file holds its error), 130 interrupted by Ctrl-C.`

const options = {
  param: { type: 'string', short: 'p', multiple: true },
  output: { type: 'string', short: 'o' },
  html: { type: 'string' },
  precision: { type: 'string' },
} as const

/** After a cell that ends later than this the file is written; at the end in any case. */
const SAVE_EVERY_MS = 2000

/** Where a run's files are; absolute, since cells run in the notebook's folder. */
interface RunFiles {
  readonly notebook: string
  readonly output: string
  readonly html: string | null
}

export async function run(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parseOptions(argv, options, ['NOTEBOOK.ipynb'])
  if (values.precision !== undefined)
    process.env['ARBOR_PRECISION'] = choiceOption(values.precision, '--precision', PRECISION_WISHES)
  const path = positionals[0]!
  const notebook = await readNotebook(path)
  injectParameters(notebook, parseParameters(values.param ?? []))
  const files = {
    notebook: resolve(path),
    output: resolve(values.output ?? path.replace(/(\.ipynb)?$/, '.executed.ipynb')),
    html: values.html === undefined ? null : resolve(values.html),
  }
  return execute(notebook, files, new RunTerminal(keepStreams()))
}

/** The terminal's own writers, taken before cells run: `process.stdout.write` then belongs to the cells. */
function keepStreams(): TerminalStreams {
  const { isTTY, columns } = process.stderr
  const out = process.stdout.write.bind(process.stdout)
  const err = process.stderr.write.bind(process.stderr)
  return { stdout: { write: (text) => out(text) }, stderr: { write: (text) => err(text), isTTY, columns } }
}

async function execute(notebook: Notebook, files: RunFiles, terminal: RunTerminal): Promise<number> {
  const folder = dirname(files.notebook)
  const before = process.cwd()
  process.chdir(folder)
  const children = new ChildProcesses()
  let saved = 0
  const save = async () => {
    await writeAtomically(files.output, formatNotebook(notebook))
    saved = Date.now()
  }
  const runner = new NotebookRunner(notebook, folder, {
    onHeadings: (headings) => terminal.onHeadings(headings),
    onCell: (cell, number, total) => terminal.onCell(cell, number, total),
    onStream: (name, text) => terminal.onStream(name, text),
    onOutput: (bundle, update) => terminal.onOutput(bundle, update),
    onCellEnd: async (cell, seconds) => {
      terminal.onCellEnd(cell, seconds)
      if (Date.now() - saved > SAVE_EVERY_MS) await save() // writing every chart again takes as long as many a cell
    },
  })
  const signals = listen(runner)
  try {
    const outcome = await runner.run()
    await children.end()
    await save()
    if (files.html !== null) await writeAtomically(files.html, notebookPage(notebook, { name: basename(files.notebook) }))
    return report(outcome, { files, terminal, signal: signals.received() })
  } finally {
    signals.stop()
    runner.close()
    process.chdir(before)
  }
}

/** Ctrl-C interrupts the cell, so that what was reached is still written; a second one ends at once. */
function listen(runner: NotebookRunner) {
  let received: 'SIGINT' | 'SIGTERM' | null = null
  const onSignal = (signal: 'SIGINT' | 'SIGTERM') => {
    if (received !== null) process.exit(exitCode(received))
    received = signal
    runner.interrupt()
  }
  const onError = (error: unknown) => runner.addStray(error)
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal)
  process.on('uncaughtException', onError).on('unhandledRejection', onError)
  return {
    received: () => received,
    stop: () => {
      process.off('SIGINT', onSignal).off('SIGTERM', onSignal)
      process.off('uncaughtException', onError).off('unhandledRejection', onError)
    },
  }
}

function report({ failure }: RunOutcome, run: { files: RunFiles; terminal: RunTerminal; signal: NodeJS.Signals | null }): number {
  const { files, terminal, signal } = run
  const interrupted = signal !== null || failure?.ename === 'KeyboardInterrupt'
  if (failure && !interrupted) terminal.failure(failure, `${basename(files.notebook)}, cell ${failure.cellNumber}`)
  if (interrupted) terminal.say('Interrupted; what was reached is kept.')
  terminal.say(`wrote ${files.output}${files.html === null ? '' : ` and ${files.html}`}`)
  return interrupted ? exitCode(signal ?? 'SIGINT') : failure ? 1 : 0
}

function exitCode(signal: NodeJS.Signals): number {
  return signal === 'SIGTERM' ? 143 : 130
}
