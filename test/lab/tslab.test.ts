// The same display calls under stock tslab, which shows one MIME type at a time and has none of our scripts: pictures, bars and text.

import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { labMissing, PYTHON, ROOT, writeNotebook } from './lab'

const CELLS = [
  `import { plot } from 'arbor-nb'`,
  `const chart = plot.liveChart()
for (const n of plot.progress([2, 3, 4], { title: 'Points' })) chart.update(plot.curves([{ name: 'a', y: [1, 5, 2, 4].slice(0, n) }], { title: 'Live' }))
chart.end()`,
  `plot.show(plot.table([{ a: 1 }]))`,
]

interface Output {
  readonly output_type: string
  readonly data?: Readonly<Record<string, string | readonly string[]>>
}

const missing = labMissing()
const home = mkdtempSync(join(tmpdir(), 'arbor-tslab-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))

describe.skipIf(missing !== null)(`stock tslab${missing === null ? '' : `: ${missing}`}`, () => {
  it('shows the last state of a live chart as a picture, a bar, and a table', () => {
    const spec = join(home, 'share/kernels/tslab')
    mkdirSync(spec, { recursive: true })
    const argv = [process.execPath, join(ROOT, 'node_modules/tslab/bin/tslab'), 'kernel', '--config-path', '{connection_file}']
    writeFileSync(join(spec, 'kernel.json'), JSON.stringify({ argv, display_name: 'tslab', language: 'typescript' }))
    mkdirSync(join(home, 'node_modules'))
    symlinkSync(ROOT, join(home, 'node_modules/arbor-nb'))
    symlinkSync(join(ROOT, 'node_modules/@types'), join(home, 'node_modules/@types'))
    writeNotebook(join(home, 'stock.ipynb'), CELLS, 'tslab')

    const args = ['-m', 'nbconvert', '--to', 'notebook', '--execute', '--output', 'done.ipynb', 'stock.ipynb']
    const env = { ...process.env, JUPYTER_PATH: join(home, 'share'), JUPYTER_RUNTIME_DIR: join(home, 'runtime') }
    const { stderr } = spawnSync(PYTHON, args, { cwd: home, env, encoding: 'utf8', timeout: 120_000 })
    expect(stderr).toContain('Writing')
    const { cells } = JSON.parse(readFileSync(join(home, 'done.ipynb'), 'utf8')) as { cells: { outputs: Output[] }[] }
    const shown = cells.flatMap(({ outputs }) => outputs).map(({ data }) => [data?.['text/html'] ?? ''].flat().join(''))
    expect(shown).toHaveLength(3)
    expect(shown[0]).toContain('Points: 3/3')
    expect(shown[1]).toContain('alt="Live: a 1 → 4"')
    expect(shown[1]).toContain('<img')
    expect(shown[2]).toContain('<table')
  }, 150_000)
})
