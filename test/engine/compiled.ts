// Threads and child processes run compiled files, so tests of them need dist/ as new as the sources.

import { readdirSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { workerPath } from '../../src/engine/worker-engine'

const SOURCES = join(__dirname, '..', '..', 'src', 'engine')

/** Why the compiled engine can't be used; null when it can. */
export function compiledEngineMissing(): string | null {
  try {
    const compiled = compiledEngine()
    const stale = readdirSync(SOURCES).find((file) => {
      if (!file.endsWith('.ts') || file.endsWith('.test.ts')) return false
      const built = statSync(join(compiled, `${basename(file, '.ts')}.js`), { throwIfNoEntry: false })
      return !built || built.mtimeMs < statSync(join(SOURCES, file)).mtimeMs
    })
    return stale ? `${stale} is newer than dist/; run "npm run build"` : null
  } catch (error) {
    return (error as Error).message
  }
}

/** The folder of the compiled engine. */
export function compiledEngine(): string {
  return dirname(workerPath())
}
