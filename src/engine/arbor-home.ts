// Where this package keeps its state: models, native libraries, runs.

import { homedir } from 'node:os'
import { join } from 'node:path'

/** $ARBOR_HOME, else ~/.arbor. */
export function arborHome(): string {
  return process.env['ARBOR_HOME'] ?? join(homedir(), '.arbor')
}
