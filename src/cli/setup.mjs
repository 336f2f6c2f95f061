// What `npm start` and `npm test` do before anything else: packages, build, native library. Plain JavaScript, as nothing is compiled yet.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
const newest = '20.19.0'

/** Runs a command in the project's folder with its output shown; ends the process when it fails. */
export function run(command, args, options = {}) {
  const result = spawnSync(command, args, { cwd: root, stdio: 'inherit', ...options })
  if (result.error) fail(`${command} could not be started: ${result.error.message}`)
  if (result.status !== 0 && !options.mayFail) process.exit(result.status ?? 1)
  return result.status ?? 1
}

export function fail(message) {
  console.error(`\n${message}`)
  process.exit(1)
}

export function say(text) {
  console.error(`\n\x1b[1m▸ ${text}\x1b[0m`)
}

function checkNode() {
  const [have, need] = [process.versions.node, newest].map((version) => version.split('.').map(Number))
  const older = have[0] !== need[0] ? have[0] < need[0] : have[1] < need[1]
  if (older)
    fail(
      `Node ${process.versions.node} is too old: arbor-nb needs ${newest} or newer. Install it from https://nodejs.org or with your version manager.`,
    )
}

/** Looks at versions, not at times: a lock file that was only written anew must not ask for the network. Optional packages may be absent. */
function packagesAreThere() {
  const marker = join(root, 'node_modules', '.package-lock.json')
  if (!existsSync(marker)) return false
  const [installed, locked] = [marker, join(root, 'package-lock.json')].map(
    (path) => JSON.parse(readFileSync(path, 'utf8')).packages,
  )
  return Object.entries(locked).every(([path, { version, optional }]) => {
    const there = installed[path]
    return path === '' || (there === undefined ? optional === true : there.version === version)
  })
}

/** Installs packages when the lock file names others than those there, compiles, and builds the native library. */
export async function setUp() {
  checkNode()
  if (!packagesAreThere()) {
    say('npm packages')
    // Not `npm ci`: it refuses a lock file in which another platform's optional packages are absent, as some registries leave them out.
    run('npm', ['install', '--no-save', '--no-audit', '--no-fund', '--loglevel=error'])
  }
  say('compile, and the native library beside it')
  const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc')
  // The page of the server runs in browsers: modules and types of its own.
  const compiled = ['tsconfig.json', join('src', 'server', 'page')].map((project) => ends(process.execPath, [tsc, '-p', project]))
  const native = await buildNative()
  const failed = (await Promise.all(compiled)).find((status) => status !== 0)
  if (failed !== undefined) process.exit(failed)
  return { native }
}

/** Runs a command with its output shown, while others run. Answers its exit status. */
function ends(command, args) {
  const child = spawn(command, args, { cwd: root, stdio: 'inherit' })
  return new Promise((resolve) => {
    child.once('error', (error) => fail(`${command} could not be started: ${error.message}`))
    child.once('exit', (code) => resolve(code ?? 1))
  })
}

/** False when the library can't be built: the engine also runs on TensorFlow.js; the person is told what would make it fast. */
async function buildNative() {
  const { ensureNative } = requireSource(join(root, 'src', 'engine', 'ops', 'build-native.ts'))
  try {
    const library = await ensureNative({ log: (line) => console.error(`  ${line}`) })
    console.error(`  ${library.description}`)
    return true
  } catch (error) {
    console.error(`  ${error.message}`)
    return false
  }
}

/** Loads a file of the sources, which are not compiled yet; the files that it needs come the same way. */
function requireSource(path) {
  const require = createRequire(import.meta.url)
  const ts = require('typescript')
  const compilerOptions = { module: ts.ModuleKind.CommonJS, target: ts.ScriptTarget.ES2022, esModuleInterop: true }
  require.extensions['.ts'] = (module, file) =>
    module._compile(ts.transpileModule(readFileSync(file, 'utf8'), { compilerOptions }).outputText, file)
  return require(path)
}

/** The compiled command line: arbor-nb ARGS. */
export function arborNb(args, options) {
  return run(process.execPath, [join(root, 'dist', 'src', 'cli', 'main.js'), ...args], options)
}
