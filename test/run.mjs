// npm test: set-up, then every tier; closes with "N passed, N failed, N skipped". `npm test -- peers e2e` runs those tiers alone.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { root, say, setUp } from '../src/cli/setup.mjs'
import { jupyterVenv } from './jupyter/venv.mjs'
import { labVenv } from './lab/venv.mjs'
import { peersVenv } from './peers/venv.mjs'

// A tier is the test files under its paths; the first takes every file that no other names. `prepare` returns variables for its tests,
// such as why they can't run here: a tier that can't run says so and counts as skipped. `alone`: one file at a time, as it measures.
const TIERS = [
  { name: 'unit', what: 'beside the file, golden vectors, native ops' },
  { name: 'jupyter', what: 'the kernel under jupyter_client', paths: ['test/jupyter'], prepare: prepareJupyter },
  {
    name: 'lab',
    what: 'JupyterLab in a browser: charts, the workbook, the packed package',
    paths: ['test/lab'],
    prepare: prepareLab,
    alone: true,
  },
  { name: 'e2e', what: 'end to end: learning, resuming, faults, SmolLM2', paths: ['test/e2e'] },
  { name: 'notebooks', what: 'the notebooks at their smallest settings', paths: ['test/e2e/workbook.test.ts', 'test/notebooks'] },
  { name: 'peers', what: 'real dspy, arbor-ai and transformers against ours', paths: ['test/peers'], prepare: preparePeers },
]

const wanted = process.argv.slice(2)
const unknown = wanted.find((name) => !TIERS.some((tier) => tier.name === name))
if (unknown !== undefined) {
  console.error(`There is no tier "${unknown}": ${TIERS.map(({ name }) => name).join(', ')}.`)
  process.exit(2)
}

const total = { passed: 0, failed: 0, skipped: 0 }
const durations = []
await timed('set-up', setUp)
if (wanted.length === 0) await timed('format and lint', lint)
for (const tier of TIERS) if (wanted.length === 0 || wanted.includes(tier.name)) await timed(tier.name, () => runTier(tier))

console.log(`\n${durations.join('\n')}\n\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`)
process.exit(total.failed === 0 ? 0 : 1)

async function timed(name, work) {
  const started = Date.now()
  const before = { ...total }
  await work()
  const counts = ['passed', 'failed', 'skipped'].map((key) => `${total[key] - before[key]} ${key}`).join(', ')
  durations.push(`  ${name.padEnd(16)} ${`${((Date.now() - started) / 1000).toFixed(0)} s`.padStart(6)}   ${counts}`)
}

function lint() {
  say('format and lint')
  const biome = join(root, 'node_modules', '@biomejs', 'biome', 'bin', 'biome')
  const { status } = spawnSync(process.execPath, [biome, 'check', '.'], { cwd: root, stdio: 'inherit' })
  total[status === 0 ? 'passed' : 'failed']++
}

function runTier(tier) {
  say(`${tier.name}: ${tier.what}`)
  const dir = mkdtempSync(join(tmpdir(), 'arbor-test-'))
  const report = join(dir, 'report.json')
  const vitest = join(root, 'node_modules', 'vitest', 'vitest.mjs')
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`]
  const args = [
    vitest,
    'run',
    '--config',
    join('test', 'vitest.config.mts'),
    ...reporters,
    ...(tier.alone ? ['--no-file-parallelism'] : []),
    ...selection(tier),
  ]
  const env = { ...process.env, ...tier.prepare?.() }
  const { status } = spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit', env })
  add(report, status)
  rmSync(dir, { recursive: true, force: true })
}

/** The tier's own paths, without those that another tier names more closely. */
function selection({ name, paths = [] }) {
  const others = TIERS.filter((tier) => tier.name !== name).flatMap((tier) => tier.paths ?? [])
  const closer = others.filter((path) => paths.length === 0 || paths.some((own) => path.startsWith(`${own}/`)))
  const exclude = closer.flatMap((path) => ['--exclude', path.endsWith('.ts') ? path : `${path}/**`])
  return [...paths.map((path) => join(root, path)), ...exclude]
}

function preparePeers() {
  const { reason } = peersVenv((line) => console.error(`  ${line}`))
  return reason === undefined ? {} : { ARBOR_PEERS_MISSING: reason }
}

function prepareJupyter() {
  const { reason } = jupyterVenv((line) => console.error(`  ${line}`))
  return reason === undefined ? {} : { ARBOR_JUPYTER_MISSING: reason }
}

function prepareLab() {
  const { reason } = labVenv((line) => console.error(`  ${line}`))
  return reason === undefined ? {} : { ARBOR_LAB_MISSING: reason }
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
