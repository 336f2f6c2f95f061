// The kernel as a person feels it: start, first cell, a small cell, a typed declaration, a completion; beside ipykernel, stock tslab, and
// Deno where the program is found (ARBOR_BENCH_DENO, or on the PATH). node test/jupyter/venv.mjs makes the Python environment.

import { execFile, execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { parseArgs, promisify } from 'node:util'
import { installKernel, prefixFolder } from '../kernels/jupyter/install'
import { ownPackageFolder } from '../kernels/jupyter/own-package'
import { machine, median } from './_report'

type Times = Readonly<Record<string, number | null>>

const ROOT = ownPackageFolder()
const PYTHON = join(ROOT, 'build', 'venv-jupyter', 'bin', 'python')

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { rounds: { type: 'string', default: '3' } } })
  if (!existsSync(PYTHON)) throw new Error(`${PYTHON} is not there; make it by: node test/jupyter/venv.mjs`)
  const folder = mkdtempSync(join(tmpdir(), 'arbor-bench-kernel-'))
  const kernels = install(folder)
  const times = new Map<string, Times[]>(kernels.map((name) => [name, []]))
  // In turn, so that a slow minute of the machine hits all of them.
  for (let round = 0; round < Number(values.rounds); round++)
    for (const name of kernels) times.get(name)!.push(await measure(name, folder))
  rmSync(folder, { recursive: true, force: true })
  report(times)
}

/** Writes the kernelspecs of all that can be compared here, and returns their names. */
function install(folder: string): string[] {
  installKernel(prefixFolder(folder), join(ROOT, 'dist', 'kernels', 'jupyter', 'main.js'))
  const tslab = join(dirname(createRequire(__filename).resolve('tslab/package.json')), 'bin', 'tslab')
  write(folder, 'tslab', [process.execPath, tslab, 'kernel', '--config-path={connection_file}'])
  const deno = process.env.ARBOR_BENCH_DENO ?? onPath('deno')
  if (deno) write(folder, 'deno', [deno, 'jupyter', '--kernel', '--conn', '{connection_file}'])
  return ['arbor-nb', 'python3', 'tslab', ...(deno ? ['deno'] : [])]
}

function write(folder: string, name: string, argv: readonly string[]): void {
  const target = join(prefixFolder(folder), 'kernels', name)
  mkdirSync(target, { recursive: true })
  writeFileSync(join(target, 'kernel.json'), JSON.stringify({ argv, display_name: name, language: 'typescript' }))
}

function onPath(program: string): string | null {
  try {
    return execFileSync('which', [program], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
  } catch {
    return null // `which` ends with 1 when there is none
  }
}

async function measure(name: string, folder: string): Promise<Times> {
  const env = { ...process.env, JUPYTER_PATH: prefixFolder(folder), ARBOR_HOME: folder }
  const script = join(ROOT, 'bench', 'peers', 'kernel_times.py')
  const { stdout } = await promisify(execFile)(PYTHON, [script, name], { env, cwd: ROOT })
  const line = stdout.trim().split('\n').at(-1)!
  process.stderr.write(`${name}  ${line}\n`)
  return JSON.parse(line) as Times
}

function report(times: ReadonlyMap<string, readonly Times[]>): void {
  const columns = Object.keys([...times.values()][0]![0]!)
  const rows = [...times].map(([name, rounds]) => {
    const medians = columns.map((column) => [column, median(rounds.map((round) => round[column] ?? Number.NaN))] as const)
    return { name, ...Object.fromEntries(medians) }
  })
  const cell = (column: string, value: number) => (column === 'memory_mib' ? `${value} MiB` : `${(value * 1000).toFixed(0)} ms`)
  process.stdout.write(`| kernel | ${columns.join(' | ')} |\n|${' --- |'.repeat(columns.length + 1)}\n`)
  for (const { name, ...medians } of rows)
    process.stdout.write(
      `| ${name} | ${columns.map((column) => cell(column, (medians as Record<string, number>)[column]!)).join(' | ')} |\n`,
    )
  process.stdout.write(`${JSON.stringify({ bench: 'kernel', ...machine(), rows })}\n`)
}

void main()
