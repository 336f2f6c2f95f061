// The command behind `npm run golden -- DIR`: one line a failing or skipped case, then the count; exit code 1 when a case fails.
import { resolve } from 'node:path'
import { readCases, replayCase } from './replay'

async function main(paths: readonly string[]): Promise<number> {
  if (paths.length === 0) throw new Error('no folder given. Usage: npm run golden -- DIR [DIR...]')
  // npm runs scripts in the package's folder; INIT_CWD is where the person typed the command.
  const cases = paths.flatMap((path) => readCases(resolve(process.env.INIT_CWD ?? process.cwd(), path)))
  if (cases.length === 0) throw new Error(`no vector files (*.json) in ${paths.join(', ')}`)
  const count = { passed: 0, failed: 0, skipped: 0 }
  for (const testCase of cases) {
    const result = await replayCase(testCase)
    count[result.status]++
    if (result.status !== 'passed') console.log(`${result.status.padEnd(7)} ${result.id}: ${result.detail}`)
  }
  console.log(`${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped`)
  return count.failed > 0 ? 1 : 0
}

main(process.argv.slice(2)).then(
  (code) => {
    process.exitCode = code
  },
  (error: unknown) => {
    console.error(`golden: ${error instanceof Error ? error.message : String(error)}`)
    process.exitCode = 1
  },
)
