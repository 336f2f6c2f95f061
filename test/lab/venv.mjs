// The Python environment for the tests in a browser, in build/: JupyterLab as `arbor-nb lab` installs it. npm test makes it; alone: node test/lab/venv.mjs
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { pythonVenv } from '../../src/cli/python-venv.mjs'

const here = dirname(fileURLToPath(import.meta.url))
export const folder = join(here, '..', '..', 'build', 'venv-lab')

/** `{ python }` or `{ reason }`. */
export function labVenv(log) {
  return pythonVenv({ folder, requirements: [{ file: join(here, '..', '..', 'src', 'cli', 'lab-requirements.txt') }], log })
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { python, reason } = labVenv((line) => console.error(`  ${line}`))
  console.log(python ?? reason)
  process.exit(python ? 0 : 1)
}
