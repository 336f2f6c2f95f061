// Adapters of prompts and in training: which way one goes hangs on itself and the weight alone, and x aᵀ is what plain sums are.

import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { CUDA, openGpu } from '../../../test/emulator/gpu'
import { Random } from './cases/case'
import type { Arena, Backend, LoraGradSlice, Tensor } from './ops'
import { toBf16 } from './tensors.fixture'

const PARTS = [40, 24]
const OUT = 64
const INNER = 72
const ROWS = 70 // more than decode

let backend: Backend
beforeAll(async () => {
  backend = await openGpu('bf16')
}, 600_000)
afterAll(() => backend.close())

function normal(arena: Arena, shape: readonly number[], seed: number, dtype: 'f32' | 'bf16' = 'f32'): Tensor {
  const tensor = arena.tensor(shape, dtype)
  const data = new Random(seed).normal(shape).data as Float32Array
  backend.upload(tensor, dtype === 'bf16' ? toBf16(data) : data)
  return tensor
}

function adapter(arena: Arena, rowStart: number, rowCount: number, rank: number, inner: number): LoraGradSlice {
  const width = PARTS.length * rank
  return {
    ...{ rowStart, rowCount, rank, scale: 1.7, parts: PARTS },
    ...{ a: normal(arena, [width, inner], 1), b: normal(arena, [OUT, rank], 2), xa: normal(arena, [rowCount, width], 3) },
    ...{ da: normal(arena, [width, inner], 4), db: normal(arena, [OUT, rank], 5) },
  }
}

/** Activations: 70 rows of the one adapter that is looked at, others before them. */
function activations(arena: Arena, before: number, width: number, seed: number): Tensor {
  const tensor = arena.tensor([before + ROWS, width], 'bf16')
  const values = (rows: number, of: number) => toBf16(new Random(of).normal([rows, width]).data as Float32Array)
  if (before > 0) backend.upload(tensor.rows(0, before), values(before, 100 + seed))
  backend.upload(tensor.rows(before, ROWS), values(ROWS, seed))
  return tensor
}

/** What the last rows and their adapter come to, with adapters of these ranks on 5 rows each before them. */
async function lastOf(rank: number, others: readonly number[]): Promise<unknown> {
  const arena = backend.arena(16 << 20)
  const before = 5 * others.length
  const last = adapter(arena, before, ROWS, rank, INNER)
  const loras = [...others.map((other, i) => adapter(arena, 5 * i, 5, other, INNER)), last]
  const [x, dx] = [activations(arena, before, INNER, 6), activations(arena, before, INNER, 7)]
  const [y, dy] = [activations(arena, before, OUT, 8), activations(arena, before, OUT, 9)]
  const weight = backend.prepareWeight([OUT, INNER], new Random(10).weight([OUT, INNER]).data as Float32Array)
  backend.ops.linear({ y, x, weight, bias: normal(arena, [OUT], 11), loras })
  backend.ops.linearBackward({ dy, x, weight, dx, loras })
  const tensors = [y.rows(before, ROWS), dx.rows(before, ROWS), last.xa, last.da, last.db]
  const values = await Promise.all(tensors.map((tensor) => backend.download(tensor)))
  arena.close()
  return values
}

describe(`adapters of many rows, on ${CUDA}`, () => {
  it.each([8, 12, 40, 72])('no bit of rank %i hangs on the adapters beside it', { timeout: 60_000 }, async (rank) => {
    const alone = await lastOf(rank, [])
    const many = Array.from({ length: 31 }, () => 8) // more members than a launch takes
    for (const others of [[8], [12], [40], [72, 8], many])
      expect(await lastOf(rank, others), `after ranks ${others.join(', ')}`).toEqual(alone)
  })

  it.each([72, 520, 3080])(
    'x aᵀ of %i terms is their plain sum, in a decode step as well',
    { timeout: 60_000 },
    async (inner) => {
      const arena = backend.arena(8 << 20)
      const one = adapter(arena, 0, ROWS, 8, inner)
      const [x, y] = [normal(arena, [ROWS, inner], 6, 'bf16'), normal(arena, [ROWS, OUT], 8, 'bf16')]
      const weight = backend.prepareWeight([OUT, inner], new Random(10).weight([OUT, inner]).data as Float32Array)
      backend.ops.linear({ y, x, weight, loras: [one] })
      const xa = (await backend.download(one.xa)) as Float32Array
      const [left, right] = [rounded([ROWS, inner], 6), rounded([16, inner], 1)]
      const plain = xa.map((_, i) => {
        const [row, column] = [Math.floor(i / 16) * inner, (i % 16) * inner]
        let sum = 0
        for (let k = 0; k < inner; k++) sum += left[row + k]! * right[column + k]!
        return sum
      })
      const largest = plain.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
      const worst = xa.reduce((most, value, i) => Math.max(most, Math.abs(value - plain[i]!)), 0)
      expect(worst).toBeLessThan(3e-6 * largest)
      const decoding = { ...one, rowCount: 1, xa: one.xa.rows(0, 1) }
      backend.ops.linear({ y: y.rows(0, 1), x: x.rows(69, 1), weight, loras: [decoding], decode: true })
      expect(await backend.download(decoding.xa)).toEqual(xa.slice(69 * 16))
      arena.close()
    },
  )
})

/** The values of `normal`, as bf16 has them. */
function rounded(shape: readonly number[], seed: number): Float32Array {
  const halves = toBf16(new Random(seed).normal(shape).data as Float32Array)
  return new Float32Array(Uint32Array.from(halves, (half) => half << 16).buffer)
}
