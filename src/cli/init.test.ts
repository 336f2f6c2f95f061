import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { folderFiles, packageName } from './init'
import { main } from './main'
import { parseNotebook } from './notebook'
import { packageInfo } from './package-info'

let out = ''
let err = ''
let home: string
beforeEach(() => {
  out = err = ''
  home = mkdtempSync(join(tmpdir(), 'arbor-init-'))
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => Boolean((out += String(text))))
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => Boolean((err += String(text))))
})
afterEach(() => {
  vi.restoreAllMocks()
  rmSync(home, { recursive: true })
})

const FILES = ['.gitignore', 'README.md', 'first.ipynb', 'package.json', 'tsconfig.json']
const read = (...path: string[]) => readFileSync(join(home, ...path), 'utf8')

describe('arbor-nb init', () => {
  it('writes a folder that names this version and what danfojs-node needs, and says what to do next', async () => {
    const dir = join(home, 'Übung eins')
    expect(await main(['init', dir])).toBe(0)
    expect(readdirSync(dir).sort()).toEqual(FILES)
    const { version, root } = packageInfo()
    const own = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
    expect(JSON.parse(read('Übung eins', 'package.json'))).toMatchObject({
      name: 'ubung-eins',
      private: true,
      dependencies: { 'arbor-nb': `^${version}`, 'danfojs-node': own.optionalDependencies['danfojs-node'] },
      overrides: own.overrides,
    })
    expect(own.overrides['danfojs-node']).toBeDefined()
    expect(out).toContain(`\n  cd '${dir}'\n`)
    expect(out).toMatch(/\n {2}npx arbor-nb lab first\.ipynb\n$/)
  })

  it('overwrites nothing: it names what is there and leaves the folder as it was', async () => {
    writeFileSync(join(home, 'tsconfig.json'), 'mine')
    expect(await main(['init', home])).toBe(2)
    expect(err).toContain(`${home} has tsconfig.json already. Choose another folder, or overwrite by --force.\n`)
    expect(readdirSync(home)).toEqual(['tsconfig.json'])
    expect(read('tsconfig.json')).toBe('mine')
  })

  it('--force overwrites these files and no others', async () => {
    mkdirSync(join(home, 'data'))
    for (const name of ['tsconfig.json', 'mine.ipynb']) writeFileSync(join(home, name), 'mine')
    expect(await main(['init', home, '--force'])).toBe(0)
    expect(JSON.parse(read('tsconfig.json')).compilerOptions.strict).toBe(true)
    expect(read('mine.ipynb')).toBe('mine')
    expect(existsSync(join(home, 'data'))).toBe(true)
  })

  it('a path through a file is an error that names it', async () => {
    writeFileSync(join(home, 'file'), '')
    expect(await main(['init', join(home, 'file', 'deep')])).toBe(1)
    expect(err).toContain(`${join(home, 'file', 'deep')} can't be written: ENOTDIR`)
  })

  it('the notebook is one, for our kernel, with the cell that -p overrides and an id for each cell', () => {
    const notebook = parseNotebook(folderFiles('x', packageInfo())['first.ipynb']!, 'first.ipynb')
    expect(notebook.metadata['kernelspec']).toMatchObject({ name: 'arbor-nb', display_name: 'TypeScript (arbor-nb)' })
    expect(notebook.cells.filter(({ metadata }) => JSON.stringify(metadata) === '{"tags":["parameters"]}')).toHaveLength(1)
    expect(new Set(notebook.cells.map(({ id }) => id)).size).toBe(notebook.cells.length)
  })

  it.each([
    ['Mein  Prøject!', 'mein-pr-ject'],
    ['.hidden', 'hidden'],
    ['ノート', 'my-notebooks'],
    ['arbor-nb', 'my-notebooks'],
    ['node_modules', 'my-notebooks'],
  ])('a folder %s is the package %s', (folder, name) => expect(packageName(folder)).toBe(name))
})
