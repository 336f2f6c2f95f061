// npm test: set-up, then every tier; closes with "N passed, N failed, N skipped".
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { arborNb, root, say, setUp } from '../src/cli/setup.mjs'

// A tier is a set of test files; the order is the order of DESIGN.md's budgets.
const TIERS = [
  { name: 'beside the file, golden vectors, native ops', args: ['--exclude', 'test/e2e/**'] },
  { name: 'end to end: the workbook on the real model', args: ['test/e2e'] },
]

await setUp()
say('the real model that some tests read')
// Without it these tests are skipped and say so.
arborNb(['fetch', 'HuggingFaceTB/SmolLM2-135M-Instruct'], { mayFail: true })
const total = { passed: 0, failed: 0, skipped: 0 }
say('format and lint')
count(
  spawnSync(process.execPath, [join(root, 'node_modules', '@biomejs', 'biome', 'bin', 'biome'), 'check', '.'], {
    cwd: root,
    stdio: 'inherit',
  }).status === 0,
)
for (const tier of TIERS) {
  say(tier.name)
  const dir = mkdtempSync(join(tmpdir(), 'arbor-test-'))
  const report = join(dir, 'report.json')
  const vitest = join(root, 'node_modules', 'vitest', 'vitest.mjs')
  const { status } = spawnSync(
    process.execPath,
    [
      vitest,
      'run',
      '--config',
      join('test', 'vitest.config.mts'),
      '--reporter=default',
      '--reporter=json',
      `--outputFile.json=${report}`,
      ...tier.args,
    ],
    { cwd: root, stdio: 'inherit' },
  )
  add(report, status)
  rmSync(dir, { recursive: true, force: true })
}
console.log(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`)
process.exit(total.failed === 0 ? 0 : 1)

function count(ok) {
  total[ok ? 'passed' : 'failed']++
}

function add(report, status) {
  try {
    const result = JSON.parse(readFileSync(report, 'utf8'))
    total.passed += result.numPassedTests
    total.failed += result.numFailedTests
    total.skipped += result.numPendingTests + (result.numTodoTests ?? 0)
    // A file that breaks before its first test, or an error outside any test, is a failure too.
    if (status !== 0 && result.numFailedTests === 0) total.failed += Math.max(1, result.numFailedTestSuites)
  } catch (error) {
    console.error(`no report from this tier: ${error.message}`)
    total.failed++
  }
}
