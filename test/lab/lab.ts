// JupyterLab for a test: a server with a token and a base URL, our kernel in its environment, settings and runs of its own.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { installKernel, KERNEL_NAME, prefixFolder } from '../../kernels/jupyter/install'
import { arborHome } from '../../src/engine/arbor-home'

export const ROOT = join(__dirname, '../..')
export const VENV = join(ROOT, 'build/venv-lab')
export const PYTHON = join(VENV, 'bin/python')
const MAIN = join(ROOT, 'dist/kernels/jupyter/main.js')
const TOKEN = 'not-so-secret'
const BASE = '/people/ada/'
const START_MS = 60_000

export interface Lab {
  /** Where notebooks lie. */
  readonly folder: string
  /** The address of a page of JupyterLab that shows the notebook alone. */
  page(notebook: string): string
  env: NodeJS.ProcessEnv
  close(): Promise<void>
}

/** Why tests that need JupyterLab can't run here, or null. */
export function labMissing(): string | null {
  if (!existsSync(PYTHON)) return `no JupyterLab (${process.env['ARBOR_LAB_MISSING'] ?? 'node test/lab/venv.mjs makes it'})`
  return existsSync(MAIN) ? null : 'the package is not built (npm run build)'
}

/** The Chromium to drive, or why these tests can't run here. */
export function browserOrReason(): { readonly program: string } | { readonly reason: string } {
  const reason = labMissing()
  return reason === null ? chromium() : { reason }
}

/** The same where JupyterLab isn't asked for. */
export function chromium(): { readonly program: string } | { readonly reason: string } {
  if (!existsSync(MAIN)) return { reason: 'the package is not built (npm run build)' }
  const found = spawnSync(process.execPath, [join(__dirname, 'browser.mjs')], { encoding: 'utf8' })
  return found.status === 0 ? { program: found.stdout.trim() } : { reason: found.stdout.trim() }
}

export function writeNotebook(file: string, sources: readonly string[], kernel = KERNEL_NAME): void {
  const cells = sources.map((source, i) => ({
    cell_type: 'code',
    id: `cell-${i}`,
    metadata: {},
    execution_count: null,
    outputs: [],
    source,
  }))
  const kernelspec = { name: kernel, display_name: kernel, language: 'typescript' }
  writeFileSync(file, JSON.stringify({ nbformat: 4, nbformat_minor: 5, metadata: { kernelspec }, cells }))
}

/** Settings of a JupyterLab that asks nothing. */
const settings = {
  'apputils-extension/notification': { fetchNews: 'false', checkForUpdates: false, doNotDisturbMode: true },
  'docmanager-extension/plugin': { autosave: false },
}

/** Starts a server in a folder of its own; `env` reaches the kernels. */
export async function startLab(env: Readonly<Record<string, string>> = {}): Promise<Lab> {
  installKernel(prefixFolder(VENV), MAIN)
  const home = mkdtempSync(join(tmpdir(), 'arbor lab ü '))
  const folder = join(home, 'notebooks')
  mkdirSync(folder)
  for (const [name, value] of Object.entries(settings)) {
    const file = join(home, 'settings/@jupyterlab', `${name}.jupyterlab-settings`)
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, JSON.stringify(value))
  }
  // The models and the built library of this machine, but runs of its own.
  mkdirSync(join(home, 'arbor'))
  for (const kept of ['models', 'native'])
    if (existsSync(join(arborHome(), kept))) symlinkSync(join(arborHome(), kept), join(home, 'arbor', kept))
  const port = await freePort()
  const own = {
    ...process.env,
    ARBOR_HOME: join(home, 'arbor'),
    JUPYTER_CONFIG_DIR: join(home, 'config'),
    JUPYTER_DATA_DIR: join(home, 'data'),
    JUPYTER_RUNTIME_DIR: join(home, 'runtime'),
    JUPYTERLAB_SETTINGS_DIR: join(home, 'settings'),
    JUPYTERLAB_WORKSPACES_DIR: join(home, 'workspaces'),
    PYTHONNOUSERSITE: '1',
    ...env,
  }
  const args = [
    '-m',
    'jupyterlab',
    '--no-browser',
    '--allow-root',
    '--expose-app-in-browser',
    `--port=${port}`,
    '--ServerApp.port_retries=0',
  ]
  const where = [`--ServerApp.base_url=${BASE}`, `--IdentityProvider.token=${TOKEN}`, `--ServerApp.root_dir=${folder}`]
  const server = spawn(PYTHON, [...args, ...where], { env: own, cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] })
  const site = `http://127.0.0.1:${port}${BASE}`
  await untilAnswers(server, `${site}api/status?token=${TOKEN}`)
  return {
    folder,
    page: (notebook) => `${site}doc/tree/${encodeURIComponent(notebook)}?token=${TOKEN}&reset`,
    env: own,
    close: async () => {
      await ended(server)
      rmSync(home, { recursive: true, force: true, maxRetries: 3 })
    },
  }
}

async function untilAnswers(server: ChildProcess, url: string): Promise<void> {
  let said = ''
  for (const stream of [server.stdout!, server.stderr!])
    stream.on('data', (chunk: Buffer) => (said = (said + chunk).slice(-4000)))
  const deadline = Date.now() + START_MS
  while (Date.now() < deadline && server.exitCode === null) {
    const answer = await fetch(url).catch(() => null)
    if (answer?.ok) return
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
  server.kill('SIGKILL')
  throw new Error(`JupyterLab did not start:\n${said}`)
}

/** The server ends its kernels first. */
function ended(server: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    if (server.exitCode !== null) return resolve()
    const late = setTimeout(() => server.kill('SIGKILL'), 15_000)
    server.once('exit', () => {
      clearTimeout(late)
      resolve()
    })
    server.kill('SIGTERM')
  })
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number }
      server.close(() => resolve(port))
    })
  })
}
