// What the emulated GPU notices, on kernels with one fault each.

import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { OWN } from './build'
import { translate } from './translate'

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'arbor-probe-'))
  const compile = (...args: string[]) =>
    execFileSync('c++', ['-std=c++17', '-O1', '-pthread', '-I', join(OWN, 'include'), ...args], { cwd: folder })
  writeFileSync(join(folder, 'probe.cpp'), translate(readFileSync(join(OWN, 'probe.cu'), 'utf8')))
  const runtime = readdirSync(OWN).filter((name) => /^(fibers|memory|streams|races)\.cpp$/.test(name))
  compile('-c', ...runtime.map((name) => join(OWN, name)))
  compile('-fsanitize=thread', '-c', 'probe.cpp')
  compile('-o', 'probe', ...['probe', 'fibers', 'memory', 'streams', 'races'].map((name) => `${name}.o`), '-ldl')
}, 120_000)
afterAll(() => rmSync(folder, { recursive: true, force: true }))

function run(kernel: string, order: 'forward' | 'backward' = 'forward') {
  const env = { ...process.env, ARBOR_EMULATOR_ORDER: order }
  const { stdout, stderr, signal } = spawnSync(join(folder, 'probe'), [kernel], { encoding: 'utf8', env, timeout: 20_000 })
  return { stdout, stderr, signal }
}

describe('the emulated GPU', () => {
  it.each(['forward', 'backward'] as const)('runs what is right, threads in %s order', (order) => {
    expect(run('well', order)).toEqual({ stdout: '1 63\n', stderr: '', signal: null })
  })

  it.each([
    ['no barrier', /a race: thread \d+ (reads|writes) what thread \d+ (wrote|read) before/],
    ['shuffle', /a race/],
    ['waits apart', /wait for each other at different places/],
    ['lanes part', /the lanes of a warp meet at different instructions/],
  ])('ends with a line for: %s', (kernel, line) => {
    const { stderr, signal } = run(kernel)
    expect(stderr).toMatch(line)
    expect(signal).toBe('SIGABRT')
  })

  it('refuses a block that no GPU takes', () => {
    expect(run('too many').stderr).toBe('refused\n')
  })
})

describe('translate', () => {
  it('makes calls of launches, however their kernels are named', () => {
    expect(translate('a<<<grid, 32, 0, s>>>(x, f(y, z));')).toBe(
      '::emulator::launch(grid, 32, 0, s, [=](auto... given) { a(given...); }, x, f(y, z));',
    )
    expect(translate('run(\n  b<T, Pack<T>::kCount>\n    <<<1, 2, 3, s>>>());')).toBe(
      'run(\n  ::emulator::launch(1, 2, 3, s, [=](auto... given) { b<T, Pack<T>::kCount>(given...); }));',
    )
  })

  it('finds the end of no launch: an error', () => {
    expect(() => translate('a<<<1, 2, 3, s')).toThrow(/a launch of a does not end/)
    expect(() => translate('a<<<1, 2, 3, s>>>(x, (y)')).toThrow(/a bracket stays open/)
  })
})
