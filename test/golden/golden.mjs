// Builds what changed, then replays the vector files of the folders given: `npm run golden -- DIR`.
import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc')
const build = spawnSync(process.execPath, [tsc, '-p', join(root, 'tsconfig.json')], { stdio: 'inherit' })
if (build.status !== 0) process.exit(build.status ?? 1)

const main = join(root, 'dist', 'test', 'golden', 'replay', 'main.js')
const replay = spawnSync(process.execPath, [main, ...process.argv.slice(2)], { stdio: 'inherit' })
process.exit(replay.status ?? 1)
