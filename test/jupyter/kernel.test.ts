// Our kernel as Jupyter's own clients see it: the public suite for kernels, and a suite of ours beside it. Both are Python
// (jupyter_client), one row a test here.

import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { run as kernelCommand } from '../../src/cli/kernel'

const ROOT = join(__dirname, '../..')
const PYTHON = join(ROOT, 'build/venv-jupyter/bin/python')
const MAIN = join(ROOT, 'dist/kernels/jupyter/main.js')
const SUITE_MS = 420_000

interface Row {
  readonly row: string
  readonly outcome: 'passed' | 'failed' | 'skipped'
  readonly why: string
}

/** Rows that the public suite has for a kernel with our features; ipykernel answers the same ones. */
const PUBLIC = [
  ...['clear_output', 'completion', 'display_data', 'error', 'execute_result', 'execute_stderr', 'execute_stdout'],
  ...['history', 'inspect', 'is_complete', 'kernel_info', 'pager'],
].map((name) => `Public.test_${name}`)

const missing = !existsSync(PYTHON)
  ? `no Python environment (${process.env['ARBOR_JUPYTER_MISSING'] ?? 'node test/jupyter/venv.mjs makes it'})`
  : !existsSync(MAIN)
    ? 'the package is not built (npm run build)'
    : null

const home = mkdtempSync(join(tmpdir(), 'arbor-kernel-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))

describe.skipIf(missing !== null)(`the kernel under jupyter_client${missing === null ? '' : `: ${missing}`}`, () => {
  beforeAll(async () => {
    const write = process.stdout.write
    process.stdout.write = () => true
    try {
      expect(await kernelCommand(['install', '--prefix', home])).toBe(0)
    } finally {
      process.stdout.write = write
    }
  })

  it(
    'passes every row of jupyter_kernel_test',
    async () => {
      const rows = await runSuite('public_suite')
      expect(faults(rows)).toEqual([])
      expect(rows.map(({ row }) => row)).toEqual([...PUBLIC, 'Welcome.test_recv_iopub_welcome_msg'])
    },
    SUITE_MS,
  )

  for (const [name, least] of Object.entries({ Protocol: 27, Lifetime: 6, Interrupt: 9, Training: 2, Output: 9, Language: 7 }))
    it(
      `passes our own rows: ${name}`,
      async () => {
        const rows = await runSuite('own_suite', name)
        expect(faults(rows)).toEqual([])
        expect(rows.length).toBeGreaterThanOrEqual(least)
      },
      SUITE_MS,
    )
})

function faults(rows: readonly Row[]): string[] {
  return rows.filter(({ outcome }) => outcome !== 'passed').map(({ row, outcome, why }) => `${row} ${outcome}\n${why}`)
}

/** Runs one suite, or classes of it, and collects its rows. */
async function runSuite(...args: readonly string[]): Promise<Row[]> {
  const env = {
    ...process.env,
    ARBOR_HOME: home,
    JUPYTER_PATH: join(home, 'share/jupyter'),
    JUPYTER_RUNTIME_DIR: join(home, 'runtime'),
    PACKAGE_FOLDER: ROOT,
    PYTHONNOUSERSITE: '1',
    PYTHONUTF8: '1',
  }
  const child = spawn(PYTHON, [join(__dirname, 'rows.py'), ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  let noise = ''
  child.stderr.on('data', (chunk: Buffer) => (noise += chunk))
  const rows: Row[] = []
  for await (const line of createInterface(child.stdout)) if (line.startsWith('{"row"')) rows.push(JSON.parse(line) as Row)
  if (rows.length === 0) throw new Error(`${args.join(' ')} told no rows:\n${noise.slice(-3000)}`)
  return rows
}
