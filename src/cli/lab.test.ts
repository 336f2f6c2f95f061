import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { installInto, jupyterOfPython, jupyterOnPath } from './jupyter'
import { workbook } from './lab'
import { main } from './main'
import { packageInfo } from './package-info'

let err = ''
let home: string
beforeEach(() => {
  err = ''
  home = mkdtempSync(join(tmpdir(), 'arbor-lab ü '))
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => Boolean((err += String(text))))
})
afterEach(() => {
  vi.restoreAllMocks()
  vi.unstubAllEnvs()
  rmSync(home, { recursive: true })
})

/** A program that answers as told, whatever it is asked. */
function program(name: string, script: string): string {
  const path = join(home, name)
  writeFileSync(path, `#!/bin/sh\n${script}\n`)
  chmodSync(path, 0o755)
  return path
}

describe('the workbook that lab opens', () => {
  const WORKBOOK = '01-grpo-workbook.ipynb'
  const { root } = packageInfo()

  it('of a clone is the original', () => {
    expect(workbook({ root }, home)).toBe(join(root, 'notebooks', WORKBOOK))
    expect(existsSync(join(home, WORKBOOK))).toBe(false)
  })

  it('of an installed package is a copy in the working folder, made once: what was written there stays', () => {
    const installed = join(home, 'node_modules', 'arbor-nb')
    mkdirSync(join(installed, 'notebooks'), { recursive: true })
    writeFileSync(join(installed, 'notebooks', WORKBOOK), 'original')
    const copy = workbook({ root: installed }, home)
    expect(copy).toBe(join(home, WORKBOOK))
    expect(readFileSync(copy, 'utf8')).toBe('original')
    expect(err).toBe(`the workbook is copied to ${copy}\n`)
    writeFileSync(copy, 'mine')
    expect(readFileSync(workbook({ root: installed }, home), 'utf8')).toBe('mine')
  })
})

describe('arbor-nb lab', () => {
  it('says that a notebook is not there, or a port is none, before it looks for anything', async () => {
    vi.stubEnv('PATH', home)
    expect(await main(['lab', join(home, 'no.ipynb')])).toBe(1)
    expect(err).toBe(`${join(home, 'no.ipynb')}: no such notebook or folder. Without a name the workbook is opened.\n`)
    expect(await main(['lab', '--port', '70000'])).toBe(2)
    expect(err).toContain('--port 70000: a whole number from 1 to 65535 is needed.')
  })

  it('without Jupyter and python3 it names the package to install and what runs without them', async () => {
    vi.stubEnv('PATH', home)
    vi.stubEnv('ARBOR_HOME', join(home, 'arbor'))
    expect(await main(['lab', home])).toBe(1)
    expect(err).toContain(`No JupyterLab here: making one in ${join(home, 'arbor', 'lab-venv')} (once)\n`)
    expect(err).toContain('python3 was not found')
    expect(err).toContain('apt install python3-venv')
    expect(err).toContain('Without it, notebooks run by: arbor-nb run NOTEBOOK.ipynb')
    expect(existsSync(join(home, 'arbor', 'lab-venv'))).toBe(false)
  })

  it('--python wants a Python that has JupyterLab 4', async () => {
    const none = program('bare', 'exit 1')
    expect(await main(['lab', home, '--python', none])).toBe(1)
    expect(err).toBe(`${none} has no JupyterLab that works. Install it: ${none} -m pip install -U jupyterlab\n`)
    const old = program('old', 'echo 3.6.7')
    expect(() => jupyterOfPython(old)).toThrow(`${old} has JupyterLab 3.6.7, which is too old (4 is needed)`)
    expect(jupyterOfPython(program('new', 'echo 4.6.6'))).toMatchObject({ lab: ['-m', 'jupyterlab'], version: '4.6.6' })
  })

  it('takes the jupyter on PATH if it works', () => {
    vi.stubEnv('PATH', home)
    expect(jupyterOnPath()).toBeNull()
    program('jupyter', 'echo "a warning"; echo 4.2.0')
    expect(jupyterOnPath()).toMatchObject({ program: 'jupyter', version: '4.2.0', tooOld: false })
    program('jupyter', 'echo 4.2.0; exit 127')
    expect(jupyterOnPath()).toBeNull()
  })

  // Looks for the compiled kernel, as the command does.
  it.skipIf(!existsSync(join(packageInfo().root, 'dist/kernels/jupyter/main.js')))(
    "puts the kernel into the first of Jupyter's folders that can be written, and says why when none can",
    () => {
      writeFileSync(join(home, 'file'), '')
      const closed = join(home, 'file', 'share')
      const spec = installInto({ data: [closed, join(home, 'first'), join(home, 'second')], runtime: [] })
      expect(spec).toBe(join(home, 'first', 'kernels', 'arbor-nb'))
      expect(existsSync(join(home, 'second'))).toBe(false)
      expect(() => installInto({ data: [closed], runtime: [] })).toThrow(/can't be installed: ENOTDIR.*--python/)
    },
  )
})
