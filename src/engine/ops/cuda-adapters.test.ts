// Adapters of prompts and in training: which way one goes hangs on itself and the weight alone, and x aᵀ is what plain sums are.

import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { CUDA, openGpu } from '../../../test/emulator/gpu'
import { Random } from './cases/case'
import type { Arena, Backend, LoraGradSlice, Tensor } from './ops'
import { toBf16 } from './tensors.fixture'

const PARTS = [40, 24]
const OUT = 64
const NARROW = 40 // adapters of many rows are inside the forward product …
const WIDE = 72 // … or inside the backward product
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

function weightOf(inner: number): Tensor {
  return backend.prepareWeight([OUT, inner], new Random(10).weight([OUT, inner]).data as Float32Array, { adapted: true })
}

/** What the last rows and their adapter come to, with adapters of these ranks on 5 rows each before them. */
async function lastOf(inner: number, rank: number, others: readonly number[]): Promise<unknown> {
  const arena = backend.arena(16 << 20)
  const before = 5 * others.length
  const last = adapter(arena, before, ROWS, rank, inner)
  const loras = [...others.map((other, i) => adapter(arena, 5 * i, 5, other, inner)), last]
  const [x, dx] = [activations(arena, before, inner, 6), activations(arena, before, inner, 7)]
  const [y, dy] = [activations(arena, before, OUT, 8), activations(arena, before, OUT, 9)]
  const weight = weightOf(inner)
  backend.ops.linear({ y, x, weight, bias: normal(arena, [OUT], 11), loras })
  backend.ops.linearBackward({ dy, x, weight, dx, loras })
  const tensors = [y.rows(before, ROWS), dx.rows(before, ROWS), last.xa, last.da, last.db]
  const values = await Promise.all(tensors.map((tensor) => backend.download(tensor)))
  arena.close()
  return values
}

describe(`adapters of many rows, on ${CUDA}`, () => {
  describe.each([NARROW, WIDE])('%i to 64', (inner) => {
    it.each([8, 12, 40, 72])('no bit of rank %i hangs on the adapters beside it', { timeout: 60_000 }, async (rank) => {
      const alone = await lastOf(inner, rank, [])
      const many = Array.from({ length: 31 }, () => 8) // more members than a launch takes
      for (const others of [[8], [12], [40], [72, 8], [32, 16, 8, 24], many])
        expect(await lastOf(inner, rank, others), `after ranks ${others.join(', ')}`).toEqual(alone)
    })

    it('rows under no adapter have the bits of a pass without any, and one that has diverged keeps to its rows', async () => {
      const arena = backend.arena(16 << 20)
      const loras = [0, 30].map((start) => adapter(arena, start, 25, 16, inner))
      const [x, dx] = [activations(arena, 0, inner, 6), activations(arena, 0, inner, 7)]
      const [y, dy] = [activations(arena, 0, OUT, 8), activations(arena, 0, OUT, 9)]
      const weight = weightOf(inner)
      const results = async (slices: readonly LoraGradSlice[]) => {
        backend.ops.linear({ y, x, weight, loras: slices })
        backend.ops.linearBackward({ dy, x, weight, dx, loras: slices })
        const rows = [...[y, dx].map((tensor) => tensor.rows(25, 5)), ...[y, dx].map((tensor) => tensor.rows(55, 15))]
        const second = slices.length > 1 ? [y, dx].map((tensor) => tensor.rows(30, 25)) : []
        return Promise.all([...rows, ...second].map((tensor) => backend.download(tensor)))
      }
      const base = await results([])
      const both = await results(loras)
      expect(both.slice(0, 4)).toEqual(base)
      const { a, b } = loras[0]!
      for (const values of [a, b]) backend.upload(values, new Float32Array(values.shape[0]! * values.shape[1]!).fill(Number.NaN))
      expect(await results(loras)).toEqual(both)
      expect(new Set(await backend.download(y.rows(0, 25)))).not.toContain(0)
      arena.close()
    })
  })

  it('a linear leaves the plan of the attention before it, which the next goes by', { timeout: 60_000 }, async () => {
    const arena = backend.arena(16 << 20)
    const [q, k, v] = [1, 2, 3].map((seed) => normal(arena, [ROWS, 64], seed, 'bf16')) as [Tensor, Tensor, Tensor]
    const segments = arena.tensor([2, 4], 'i32')
    const context = arena.tensor([ROWS], 'i32')
    backend.upload(segments, Int32Array.of(0, 40, 0, 40, 40, 30, 40, 30))
    backend.upload(
      context,
      Int32Array.from({ length: ROWS }, (_, i) => i),
    )
    const plan = { segments, context, segmentCount: 2 }
    const attend = async (samePlan: boolean) => {
      const out = arena.tensor([ROWS, 64], 'bf16')
      backend.ops.attention({ out, q, k, v, plan, heads: 1, kvHeads: 1, headDim: 64, samePlan })
      return backend.download(out)
    }
    const expected = await attend(false)
    const [x, y] = [activations(arena, 0, NARROW, 6), activations(arena, 0, OUT, 8)]
    const trained = normal(arena, [OUT, NARROW], 10)
    for (const [weight, loras] of [
      [weightOf(NARROW), [adapter(arena, 0, ROWS, 8, NARROW)]],
      [trained, []],
    ] as const) {
      const linear = () => {
        backend.ops.linear({ y, x, weight, loras })
        backend.ops.linearBackward({ dy: y, x, weight, dx: x, loras })
      }
      linear() // memory has grown
      await attend(false)
      linear()
      expect(await attend(true)).toEqual(expected)
    }
    arena.close()
  })

  it.each([72, 520, 3080])(
    'x aᵀ of %i terms is their plain sum, in a decode step as well',
    { timeout: 60_000 },
    async (inner) => {
      const arena = backend.arena(8 << 20)
      const one = adapter(arena, 0, ROWS, 8, inner)
      const [x, y] = [normal(arena, [ROWS, inner], 6, 'bf16'), normal(arena, [ROWS, OUT], 8, 'bf16')]
      const weight = weightOf(inner)
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
