// The Python environment of the peers' tests, in build/. npm test makes it; alone: node test/peers/venv.mjs
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { pythonVenv } from '../../src/cli/python-venv.mjs'

const here = dirname(fileURLToPath(import.meta.url))

/** `{ python }` or `{ reason }`. torch is part of it where the index has its CPU build, or with ARBOR_PEERS_TORCH=1. */
export function peersVenv(log) {
  const requirements = [
    { file: join(here, 'requirements.txt') },
    { file: join(here, 'requirements-arbor.txt'), noDeps: true },
    { file: join(here, 'requirements-reports.txt') },
    { file: join(here, 'requirements-arbor-server.txt') },
    { file: join(here, 'requirements-llama.txt'), optional: true },
    process.env.ARBOR_PEERS_TORCH === '1'
      ? { file: join(here, 'requirements-torch.txt') }
      : { file: join(here, 'requirements-torch-cpu.txt'), optional: true },
  ]
  return pythonVenv({ folder: join(here, '..', '..', 'build', 'venv-peers'), requirements, log })
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { python, reason } = peersVenv((line) => console.error(`  ${line}`))
  console.log(python ?? reason)
  process.exit(python ? 0 : 1)
}
