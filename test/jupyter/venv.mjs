// The Python environment of the kernel's tests, in build/, with our kernel installed in it. npm test makes it; alone: node test/jupyter/venv.mjs
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { pythonVenv } from '../../src/cli/python-venv.mjs'

const here = dirname(fileURLToPath(import.meta.url))
export const folder = join(here, '..', '..', 'build', 'venv-jupyter')

/** `{ python }` or `{ reason }`. */
export function jupyterVenv(log) {
  return pythonVenv({ folder, requirements: [{ file: join(here, 'requirements.txt') }], log })
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { python, reason } = jupyterVenv((line) => console.error(`  ${line}`))
  console.log(python ?? reason)
  process.exit(python ? 0 : 1)
}
