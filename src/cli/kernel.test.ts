import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { DISPLAY_NAME, installedKernels, installKernel, prefixFolder, uninstallKernel } from '../../kernels/jupyter/install'
import { run } from './kernel'

const folder = mkdtempSync(join(tmpdir(), 'arbor Ünï '))
afterAll(() => rmSync(folder, { recursive: true }))

describe('arbor-nb kernel', () => {
  const prefix = join(folder, 'prefix')
  const main = join(folder, 'main.js')
  const spec = join(prefix, 'share/jupyter/kernels/arbor-nb')

  it('writes a kernelspec that Jupyter can start, with what pages load from it', () => {
    writeFileSync(main, '')
    expect(installKernel(prefixFolder(prefix), main)).toBe(spec)
    const kernel = JSON.parse(readFileSync(join(spec, 'kernel.json'), 'utf8'))
    expect(kernel).toMatchObject({ display_name: DISPLAY_NAME, language: 'typescript', interrupt_mode: 'message' })
    expect(kernel.argv).toEqual([process.execPath, '--no-force-async-hooks-checks', main, '{connection_file}'])
    expect(readFileSync(join(spec, 'plotly-basic.min.js'), 'utf8')).toContain('plotly.js (basic - minified)')
    expect(readFileSync(join(spec, 'logo-svg.svg'), 'utf8')).toContain('<svg')
  })

  it('replaces an older one, and lists what is there and what is broken', () => {
    mkdirSync(spec, { recursive: true })
    writeFileSync(join(spec, 'left-over.txt'), '')
    installKernel(prefixFolder(prefix), main)
    expect(existsSync(join(spec, 'left-over.txt'))).toBe(false)
    expect(installedKernels([prefixFolder(prefix), folder])).toEqual([{ folder: spec, main, missing: null }])
    rmSync(main)
    expect(installedKernels([prefixFolder(prefix)])[0]!.missing).toBe(main)
    writeFileSync(main, '')
    const kernel = JSON.parse(readFileSync(join(spec, 'kernel.json'), 'utf8'))
    kernel.argv[0] = join(folder, 'no longer/node')
    writeFileSync(join(spec, 'kernel.json'), JSON.stringify(kernel))
    expect(installedKernels([prefixFolder(prefix)])[0]!.missing).toBe(kernel.argv[0])
  })

  it('removes it again', () => {
    expect(uninstallKernel(prefixFolder(prefix))).toBe(true)
    expect(uninstallKernel(prefixFolder(prefix))).toBe(false)
  })

  it('refuses what it does not understand', async () => {
    await expect(run(['instal'])).rejects.toThrow('Did you mean install?')
    await expect(run(['install', '--user', '--prefix', folder])).rejects.toThrow('Choose one of --user and --prefix')
    await expect(run([])).rejects.toThrow('missing')
  })

  it('says when the package is not built', () => {
    expect(() => installKernel(prefixFolder(prefix), join(folder, 'nowhere.js'))).toThrow('build the package first')
  })
})
