// Products larger than the shared table of cases has, at both precisions and every instruction set of this CPU: against a loop that rounds operands
// as the precision says and sums in double, and bit for bit among other rows.

import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { packageRoot } from '../package-root'
import { ensureNative, possibleIsas } from './build-native'
import { openNative } from './native'
import { openBackend } from './open-backend'
import type { Backend } from './ops'
import { tensorsOn } from './tensors.fixture'

const noise = (count: number, seed: number) =>
  Float32Array.from({ length: count }, (_, i) => Math.sin(i * 12.9898 + seed * 78.233))

const word = new Int32Array(1)
const float = new Float32Array(word.buffer)

/** The nearest bf16, ties to even. */
function toBf16(value: number): number {
  float[0] = value
  word[0] = (word[0]! + 0x7fff + ((word[0]! >>> 16) & 1)) & 0xffff0000
  return float[0]!
}

for (const precision of ['f32', 'bf16'] as const)
  describe(`native products, ${precision}`, { timeout: 60_000 }, () => {
    const round = precision === 'bf16' ? toBf16 : (value: number) => value
    let backend: Backend
    beforeAll(async () => {
      backend = openNative(await ensureNative(), { precision })
    }, 600_000)
    afterAll(() => backend.close())

    const { upload, download } = tensorsOn(() => backend)

    it('a row has the same bits alone, among 5, 40 and 500 rows, forward and backward, and they are right', async () => {
      const [inner, out] = [903, 710]
      const [weights, x, dy] = [noise(out * inner, 4), noise(500 * inner, 5), noise(500 * out, 6)]
      const weight = backend.prepareWeight([out, inner], weights)
      const seen: Float32Array[][] = []
      for (const rows of [1, 5, 40, 500]) {
        const y = upload([rows, out], new Float32Array(rows * out))
        const dx = upload([rows, inner], new Float32Array(rows * inner))
        const from = upload([rows, inner], x.slice(0, rows * inner))
        backend.ops.linear({ y, x: from, weight })
        backend.ops.linearBackward({ dx, dy: upload([rows, out], dy.slice(0, rows * out)), x: from, weight })
        seen.push([(await download(y)).slice(0, out), (await download(dx)).slice(0, inner)])
      }
      for (const bits of seen) expect(bits).toEqual(seen[0])
      const [y, dx] = seen[0]!
      for (const o of [0, 7, 400, out - 1]) {
        let exact = 0
        for (let i = 0; i < inner; i++) exact += round(x[i]!) * round(weights[o * inner + i]!)
        expect(y![o]).toBeCloseTo(exact, 3)
      }
      for (const i of [0, 1, 511, inner - 1]) {
        let exact = 0
        for (let o = 0; o < out; o++) exact += round(dy[o]!) * round(weights[o * inner + i]!)
        expect(dx![i]).toBeCloseTo(exact, 3)
      }
    })

    it('rows of a prepared weight are the rows of the matrix, as a table and as a weight', async () => {
      const [inner, out] = [41, 70]
      const weights = noise(out * inner, 7)
      const view = backend.prepareWeight([out, inner], weights).rows(32, 38)
      const rounded = weights.map(round).subarray(32 * inner)
      const picked = upload([2, inner], new Float32Array(2 * inner))
      backend.ops.embed({ out: picked, table: view, ids: upload([2], Int32Array.of(37, 3)) })
      const row = (r: number) => [...rounded.subarray(r * inner, (r + 1) * inner)]
      expect([...(await download(picked))]).toEqual([...row(37), ...row(3)])
      const one = new Float32Array(inner)
      one[40] = 1
      const column = upload([1, 38], new Float32Array(38))
      backend.ops.linear({ y: column, x: upload([1, inner], one), weight: view })
      expect([...(await download(column))]).toEqual(Array.from({ length: 38 }, (_, r) => rounded[r * inner + 40]))
    })

    it('NaN and infinity in a row stay in it', async () => {
      const [inner, out] = [40, 20]
      const x = noise(3 * inner, 8)
      x[5] = Number.NaN
      x[inner + 5] = Infinity
      const y = upload([3, out], new Float32Array(3 * out))
      backend.ops.linear({ y, x: upload([3, inner], x), weight: backend.prepareWeight([out, inner], noise(out * inner, 9)) })
      const sums = await download(y)
      expect(sums.subarray(0, out).every(Number.isNaN)).toBe(true)
      expect(sums.subarray(out, 2 * out).some(Number.isFinite)).toBe(false)
      expect(sums.subarray(2 * out).every(Number.isFinite)).toBe(true)
    })
  })

describe('precision', () => {
  it('is f32 or bf16 as asked, by argument before ARBOR_PRECISION', async () => {
    const before = process.env['ARBOR_PRECISION']
    const opened: Backend[] = []
    try {
      process.env['ARBOR_PRECISION'] = 'bf16'
      opened.push(await openBackend('cpu'), await openBackend('cpu', { precision: 'f32' }))
      expect(opened.map((backend) => backend.precision)).toEqual(['bf16', 'f32'])
      await expect(openBackend('tfjs')).rejects.toThrow('computes in f32')
      process.env['ARBOR_PRECISION'] = 'fp8'
      await expect(openBackend('cpu')).rejects.toThrow('The precision is "fp8"; it is one of auto, f32, bf16.')
    } finally {
      if (before === undefined) delete process.env['ARBOR_PRECISION']
      else process.env['ARBOR_PRECISION'] = before
      for (const backend of opened) backend.close()
    }
  })

  it('is bf16 by itself only where the instruction set multiplies it', async () => {
    const library = await ensureNative()
    const backend = openNative(library)
    expect(backend.precision).toBe(/^(avx512bf16|amx),/.test(library.description) ? 'bf16' : 'f32')
    backend.close()
  })
})

// A library is chosen once for a process, so each instruction set has one of its own.
describe.each(possibleIsas().slice(0, -1))('with ARBOR_MAX_ISA=%s', (isa) => {
  // Not spawnSync: the first time another library is built, and a worker of vitest that says nothing for a minute is given up.
  it('the products hold', { timeout: 600_000 }, async () => {
    if (process.env['ARBOR_MAX_ISA'] !== undefined) return // we are such a process
    const vitest = join(packageRoot(), 'node_modules', 'vitest', 'vitest.mjs')
    const env = { ...process.env, ARBOR_MAX_ISA: isa }
    const run = await new Promise<{ code: unknown; output: string }>((resolve) => {
      const options = { cwd: packageRoot(), env, maxBuffer: 2 ** 26 }
      execFile(process.execPath, [vitest, 'run', 'src/engine/ops/native-products.test.ts'], options, (error, out, err) =>
        resolve({ code: error?.code ?? 0, output: out + err }),
      )
    })
    expect(run.code, run.output).toBe(0)
  })
})
