import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { main } from './main'
import { packageInfo } from './package-info'
import { formatBytes, progressReporter } from './progress'

let out = ''
let err = ''
beforeEach(() => {
  out = ''
  err = ''
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    out += String(text)
    return true
  })
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    err += String(text)
    return true
  })
})
afterEach(() => {
  vi.restoreAllMocks()
  vi.unstubAllEnvs()
})

const COMMANDS = ['serve', 'lab', 'init', 'run', 'pretrain', 'python', 'fetch', 'doctor']

describe('arbor-nb', () => {
  it('--help lists every command; without a command the same text comes with exit code 2', async () => {
    expect(await main(['--help'])).toBe(0)
    for (const name of COMMANDS) expect(out).toMatch(new RegExp(`^  ${name} +\\w`, 'm'))
    const help = out
    out = ''
    expect(await main([])).toBe(2)
    expect(out).toBe(help)
  })

  it.each(COMMANDS)('%s --help shows its usage, whatever else stands there', async (name) => {
    expect(await main([name, 'anything', '--help'])).toBe(0)
    expect(out).toMatch(new RegExp(`^Usage: arbor-nb ${name}`))
    expect(err).toBe('')
  })

  it.each(COMMANDS)('%s with an unknown flag ends with 2 and names it', async (name) => {
    expect(await main([name, '--no-such-thing'])).toBe(2)
    expect(err).toMatch(new RegExp(`^Unknown option --no-such-thing\\.[^]*See: arbor-nb ${name} --help`))
  })

  it('--version is that of package.json', async () => {
    expect(await main(['--version'])).toBe(0)
    expect(out).toBe(`${packageInfo().version}\n`)
  })

  it('an unknown command names the nearest', async () => {
    expect(await main(['fetsh'])).toBe(2)
    expect(err).toBe('Unknown command fetsh. Did you mean fetch?\nSee: arbor-nb --help\n')
    err = ''
    expect(await main(['--verison'])).toBe(2)
    expect(err).toContain('Unknown option --verison. Did you mean --version?')
    err = ''
    expect(await main(['toString'])).toBe(2)
    expect(err).toContain('Unknown command toString.')
  })

  it('an error of a command is its message alone and exit code 1', async () => {
    expect(await main(['fetch', './no-such-model'])).toBe(1)
    expect(err).toBe('./no-such-model: no such file or folder.\n')
  })
})

describe('arbor-nb fetch', () => {
  it('prints what the model is and where it lies', async () => {
    const path = join(__dirname, '../../test/golden/gguf/tiny-llama.gguf')
    expect(await main(['fetch', path])).toBe(0)
    expect(out).toBe(
      `tiny-llama.gguf\n  source      a GGUF file\n  path        ${path}\n  model       llama, 0.0 M parameters, context of 128 tokens\n`,
    )
  })

  it('says of the model that comes with arbor-nb that it is there', async () => {
    expect(await main(['fetch', 'arbor-tiny'])).toBe(0)
    expect(out).toMatch(
      /^arbor-tiny\n {2}source {6}comes with arbor-nb: nothing to fetch\n {2}path {8}.*data\/models\/arbor-tiny\n/,
    )
    expect(out).toMatch(/model {7}llama, \d\.\d M parameters, context of \d+ tokens\n$/)
    expect(err).toBe('')
  })

  it('MODEL is needed, once', async () => {
    expect(await main(['fetch'])).toBe(2)
    expect(err).toMatch(/^MODEL is missing\./)
    err = ''
    expect(await main(['fetch', 'a', 'b'])).toBe(2)
    expect(err).toMatch(/^Unexpected argument "b"\./)
  })
})

describe('arbor-nb doctor', () => {
  it('finds this Node, the packages, the model that comes along, and the empty cache with the command that fills it', async () => {
    const home = mkdtempSync(join(tmpdir(), 'arbor-doctor-'))
    vi.stubEnv('ARBOR_HOME', home)
    const code = await main(['doctor'])
    rmSync(home, { recursive: true })
    expect(out).toMatch(new RegExp(`^✓ Node +${process.versions.node}$`, 'm'))
    expect(out).toMatch(/^✓ npm packages +all \d+ are installed$/m)
    expect(out).toMatch(/^✓ model +arbor-tiny, \d+\.\d MB, comes with arbor-nb$/m)
    expect(out).toMatch(
      /^· fetched models +none in .*; none is needed\n +→ arbor-nb fetch HuggingFaceTB\/SmolLM2-135M-Instruct$/m,
    )
    expect(out).toMatch(/^[✓·] JupyterLab {7}\S.*(npx arbor-nb lab opens the workbook|\n +→ npx arbor-nb lab installs it)/m)
    expect(code).toBe(out.includes('✗') ? 1 : 0)
    expect(out).toMatch(code === 0 ? /\nReady\.\n$/ : /\nMissing: .+\.\n$/)
  })
})

describe('progress', () => {
  const fake = (isTTY: boolean) => {
    const pieces: string[] = []
    const stream = { isTTY, write: (text: string) => pieces.push(text) } as unknown as NodeJS.WriteStream
    return { pieces, progress: progressReporter(stream) }
  }

  it('a terminal gets a bar that redraws itself and ends its line', () => {
    const { pieces, progress } = fake(true)
    for (const bytes of [0, 5e6, 5e6 + 1, 10e6]) progress(bytes, 10e6)
    expect(pieces).toHaveLength(3)
    expect(pieces[1]).toBe(`\r  ${'█'.repeat(15)}${'░'.repeat(15)}  50 %  5.0 MB of 10.0 MB\x1b[K`)
    expect(pieces[2]).toMatch(/^\r.*100 %.*\n$/)
  })

  it('a file gets a line every tenth', () => {
    const { pieces, progress } = fake(false)
    for (let bytes = 0; bytes <= 1000; bytes++) progress(bytes, 1000)
    expect(pieces).toHaveLength(11)
    expect(pieces[3]).toBe('   30 %  300 B of 1.0 kB\n')
  })

  it('a bar never goes back, but another download starts at its beginning', () => {
    const { pieces, progress } = fake(false)
    for (const [bytes, total] of [
      [90, 100],
      [80, 100],
      [5, 200],
    ] as const)
      progress(bytes, total)
    expect(pieces).toEqual(['   90 %  90 B of 100 B\n', '    2 %  5 B of 200 B\n'])
  })

  it('sizes are in decimal units', () => {
    expect([0, 999, 1000, 94_400_000, 1.26e9].map(formatBytes)).toEqual(['0 B', '999 B', '1.0 kB', '94.4 MB', '1.3 GB'])
  })
})
