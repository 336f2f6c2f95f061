// The package as npm packs it, in a folder whose name has spaces and Unicode: `arbor-nb lab` with a Python environment of its own, a
// token, a base URL, two kernels at once, and the end by Ctrl-C.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'

const ROOT = join(__dirname, '../..')
/** Kept between runs, like the environments of the other tests. */
const ARBOR_HOME = join(ROOT, 'build/lab home ü')
const TOKEN = 'geheim'
const SLOW_MS = 300_000

const home = mkdtempSync(join(tmpdir(), 'arbor packed ü 空 '))
const folder = join(home, 'notebooks')
const installed = join(folder, 'node_modules/arbor-nb')
const lab: { process?: ChildProcess; said: string; reason?: string; url?: string } = { said: '' }

beforeAll(async () => {
  const { pythonVenv } = await import('../../src/cli/python-venv.mjs' as string)
  const requirements = [{ file: join(ROOT, 'src/cli/lab-requirements.txt') }]
  // What `lab` would do first; here, so that a machine without Python or network skips instead of failing.
  lab.reason = existsSync(join(ROOT, 'dist/src/cli/main.js'))
    ? pythonVenv({ folder: join(ARBOR_HOME, 'lab-venv'), requirements }).reason
    : 'the package is not built (npm run build)'
  if (lab.reason === undefined) install()
}, SLOW_MS)

afterAll(() => {
  lab.process?.kill('SIGTERM')
  rmSync(home, { recursive: true, force: true })
})

/** Unpacks the tarball; of this repository's packages it gets those that its package.json asks for, and no others. */
function install(): void {
  mkdirSync(folder)
  execFileSync('npm', ['pack', '--ignore-scripts', '--pack-destination', home], { cwd: ROOT, stdio: 'ignore' })
  const tarball = readdirSync(home).find((name) => name.endsWith('.tgz'))!
  execFileSync('tar', ['-xzf', join(home, tarball), '-C', home])
  cpSync(join(home, 'package'), installed, { recursive: true })
  const { dependencies } = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>
  }
  for (const name of Object.keys(dependencies)) {
    const link = join(folder, 'node_modules', name)
    mkdirSync(dirname(link), { recursive: true })
    symlinkSync(join(ROOT, 'node_modules', name), link)
  }
}

/** Starts the command where neither `jupyter` nor `node` of PATH works: it has to do without both. */
function start(): Promise<string> {
  const programs = join(home, 'programs')
  mkdirSync(programs)
  for (const name of ['jupyter', 'node']) writeFileSync(join(programs, name), '#!/bin/sh\nexit 127\n', { mode: 0o755 })
  const jupyter = ['CONFIG', 'DATA', 'RUNTIME'].map((kind) => [`JUPYTER_${kind}_DIR`, join(home, kind)])
  const env = { ...process.env, ...Object.fromEntries(jupyter), ARBOR_HOME, PATH: `${programs}:${process.env['PATH']}` }
  const options = ['--no-browser', '--', '--ServerApp.base_url=/people/ada/', `--IdentityProvider.token=${TOKEN}`]
  const child = spawn(process.execPath, [join(installed, 'dist/src/cli/main.js'), 'lab', ...options], { cwd: folder, env })
  lab.process = child
  return new Promise((resolve, reject) => {
    const hear = (chunk: Buffer) => {
      lab.said += chunk
      const address = /^ {2}(http\S+)$/m.exec(lab.said)?.[1]
      if (address) resolve(address)
    }
    child.stdout.on('data', hear)
    child.stderr.on('data', hear)
    child.once('exit', (code) => reject(new Error(`lab ended with ${code}:\n${lab.said}`)))
  })
}

it('holds the page of the server, compiled, and nothing of its sources', ({ skip }) => {
  if (lab.reason !== undefined) return skip(lab.reason)
  const files = (folder: string) => readdirSync(join(installed, folder))
  // npm takes a README along wherever it takes a file.
  expect(
    files('src/server/page')
      .filter((name) => name !== 'README.md')
      .sort(),
  ).toEqual(['docs.css', 'index.html', 'page.css'])
  expect(existsSync(join(installed, 'dist/src/server/page'))).toBe(false)
  expect(files('kernels/cuda')).toContain('stream.cu')
  expect(files('dist/web')).toEqual(['server'])
  expect(files('dist/web/server/page')).toContain('main.js')
  expect(files('dist/web/server/page').filter((name) => !/^[a-z-]+\.js$/.test(name))).toEqual([])
  const { PageFiles } = require(join(installed, 'dist/src/server/page-files.js')) as typeof import('../../src/server/page-files')
  for (const name of ['index.html', 'page.css', 'main.js', 'logo-svg.svg'])
    expect([name, new PageFiles().response(name, undefined).status]).toEqual([name, 200])
})

it(
  'lab copies the workbook, installs the kernel into its own environment, and tells the address with the token',
  async ({ skip }) => {
    if (lab.reason !== undefined) return skip(lab.reason)
    const address = await start()
    const [, url] =
      /^(http:\/\/localhost:\d+\/people\/ada\/)lab\/tree\/01-grpo-workbook\.ipynb\?token=geheim$/.exec(address) ?? []
    expect(url, address).toBeDefined()
    lab.url = url!
    expect(readFileSync(join(folder, '01-grpo-workbook.ipynb'), 'utf8')).toBe(
      readFileSync(join(ROOT, 'notebooks/01-grpo-workbook.ipynb'), 'utf8'),
    )
    const spec = join(ARBOR_HOME, 'lab-venv/share/jupyter/kernels/arbor-nb/kernel.json')
    const { argv } = JSON.parse(readFileSync(spec, 'utf8')) as { argv: string[] }
    expect([argv[0], argv.at(-2)]).toEqual([process.execPath, join(installed, 'dist/kernels/jupyter/main.js')])
  },
  SLOW_MS,
)

it('the server gives nothing away without the token, and what charts need with it', async ({ skip }) => {
  if (lab.reason !== undefined) return skip(lab.reason)
  const status = async (path: string, headers = {}) => (await fetch(`${lab.url}${path}`, { headers, redirect: 'manual' })).status
  const authorization = { authorization: `token ${TOKEN}` }
  expect(await status('api/kernelspecs')).toBe(403)
  expect(await status('api/kernelspecs', authorization)).toBe(200)
  expect(await status('kernelspecs/arbor-nb/plotly-basic.min.js', authorization)).toBe(200)
})

it(
  'two kernels run at once, each with its own variables, on this Node, with the packed library; Ctrl-C ends them and the server',
  async ({ skip }) => {
    if (lab.reason !== undefined) return skip(lab.reason)
    const cells = (mine: string) => [
      `import { dspy } from 'arbor-nb'\nconst mine: string = '${mine}'\nsetInterval(() => {}, 1000)`,
      'await new Promise((resolve) => setTimeout(resolve, 500))',
      'const asked = new dspy.Example({ question: mine })',
      'console.log(JSON.stringify([asked.question, process.pid, process.execPath, process.cwd()]))',
    ]
    const script = [join(__dirname, 'cells.py'), lab.url!, TOKEN, JSON.stringify(['A', 'B'].map(cells))]
    const answer = execFileSync(join(ARBOR_HOME, 'lab-venv/bin/python'), script, { encoding: 'utf8' })
    const shown = (JSON.parse(answer) as string[][]).map(
      (outputs) => JSON.parse(outputs.at(-1)!) as [string, number, string, string],
    )
    expect(shown.map(([mine, , node, cwd]) => [mine, node, cwd])).toEqual([
      ['A', process.execPath, folder],
      ['B', process.execPath, folder],
    ])
    const pids = shown.map(([, pid]) => pid)
    expect(pids.filter(alive)).toHaveLength(2)
    const code = new Promise((resolve) => lab.process!.once('exit', resolve))
    lab.process!.kill('SIGINT')
    expect(await code).toBe(0)
    expect(pids.filter(alive)).toEqual([])
    await expect(fetch(`${lab.url}api`)).rejects.toThrow()
  },
  SLOW_MS,
)

function alive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}
