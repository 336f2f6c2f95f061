#!/usr/bin/env node
// The command line. Each command is a file of this folder, loaded only when it is asked for, so that --help is instant.

import { ArborError, nearestName, OptionError } from '../errors'
import { type Command, didYouMean } from './options'
import { packageInfo } from './package-info'

interface Entry {
  readonly summary: string
  readonly load: () => Promise<Command>
}

const COMMANDS: Readonly<Record<string, Entry>> = {
  serve: { summary: 'serve a model: chat completions and training', load: () => import('./serve') },
  lab: { summary: 'open the workbook in JupyterLab', load: () => import('./lab') },
  init: { summary: 'write a folder to start from, with a first notebook', load: () => import('./init') },
  run: { summary: 'execute a notebook, write it with its outputs and as a page', load: () => import('./run') },
  pretrain: { summary: 'make a small base model from nothing', load: () => import('./pretrain') },
  python: {
    summary: 'say where the module for Python lies: arbor.init() then starts our server',
    load: () => import('./python'),
  },
  kernel: { summary: 'make the TypeScript kernel known to Jupyter', load: () => import('./kernel') },
  fetch: { summary: 'bring a model into the cache', load: () => import('./fetch') },
  runs: { summary: 'list, show and compare the runs that were trained', load: () => import('./runs') },
  export: { summary: 'write a policy for other programs: merged, GGUF or adapter', load: () => import('./export') },
  doctor: { summary: 'say what is there, what is missing, and how to get it', load: () => import('./doctor') },
}

/** Runs `arbor-nb ...argv` and returns the exit code: 0 fine, 1 failed, 2 not understood. */
export async function main(argv: readonly string[]): Promise<number> {
  const [name, ...rest] = argv
  try {
    if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
      process.stdout.write(overview())
      return name === undefined ? 2 : 0
    }
    if (name === '--version') {
      process.stdout.write(`${packageInfo().version}\n`)
      return 0
    }
    const entry = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined
    if (!entry) throw unknownCommand(name)
    const command = await entry.load()
    const flags = rest.slice(0, rest.includes('--') ? rest.indexOf('--') : undefined)
    if (!flags.includes('--help') && !flags.includes('-h')) return await command.run(rest)
    process.stdout.write(`${command.help}\n`)
    return 0
  } catch (error) {
    return report(error, name)
  }
}

function overview(): string {
  const lines = Object.entries(COMMANDS).map(([name, { summary }]) => `  ${name.padEnd(8)} ${summary}\n`)
  return (
    `Usage: arbor-nb COMMAND [options]\n\nReinforcement learning of LM programs, in TypeScript, in a notebook.\n\n${lines.join('')}\n` +
    `  --version, --help\n\narbor-nb COMMAND --help tells more.\n`
  )
}

function unknownCommand(name: string): OptionError {
  const what = name.startsWith('-') ? 'option' : 'command'
  return new OptionError(
    `Unknown ${what} ${name}.${didYouMean(nearestName(name, [...Object.keys(COMMANDS), '--help', '--version']))}`,
  )
}

/** A mistake in the arguments ends with 2 and points at the help; a fault of our own shows its stack. */
function report(error: unknown, name: string | undefined): number {
  if (error instanceof OptionError) {
    const known = name !== undefined && Object.hasOwn(COMMANDS, name)
    process.stderr.write(`${error.message}\nSee: arbor-nb ${known ? `${name} ` : ''}--help\n`)
    return 2
  }
  const text =
    error instanceof ArborError ? error.message : error instanceof Error ? (error.stack ?? error.message) : String(error)
  process.stderr.write(`${text}\n`)
  return 1
}

if (require.main === module) main(process.argv.slice(2)).then((code) => process.exit(code))
