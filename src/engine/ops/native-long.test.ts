// Sums over more rows than the shared table of cases has: they are cut into pieces for many threads.

import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ensureNative } from './build-native'
import { openNative } from './native'
import type { AttentionPlan, Backend } from './ops'
import { tensorsOn } from './tensors.fixture'

const noise = (count: number, seed: number) =>
  Float32Array.from({ length: count }, (_, i) => Math.sin(i * 12.9898 + seed * 78.233))

describe('native: sums over many rows', { timeout: 60_000 }, () => {
  let backend: Backend
  beforeAll(async () => {
    backend = openNative(await ensureNative())
  }, 600_000)
  afterAll(() => backend.close())

  const { upload, download } = tensorsOn(() => backend)
  const expectClose = (actual: Float32Array, expected: ArrayLike<number>) => {
    const worst = actual.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i]!)), 0)
    const largest = Array.from(expected).reduce((most, value) => Math.max(most, Math.abs(value)), 0)
    expect(worst).toBeLessThan(2e-5 * largest)
  }

  it.each([
    [1, 5, 3],
    [1023, 24, 40],
    [2600, 24, 40],
    [5000, 33, 17],
  ])("the gradients of a linear over %i rows, [%i, %i], are the rows' sums", async (rows, out, inner) => {
    const [dy, x] = [noise(rows * out, 1), noise(rows * inner, 2)]
    const [weights, biases] = [noise(out * inner, 3), noise(out, 4)]
    const [dWeight, dBias] = [upload([out, inner], weights), upload([out], biases)]
    const given = { dy: upload([rows, out], dy), x: upload([rows, inner], x), weight: upload([out, inner], weights) }
    backend.ops.linearBackward({ ...given, dWeight, dBias })
    const [sums, columns] = [Float64Array.from(weights), Float64Array.from(biases)]
    for (let t = 0; t < rows; t++)
      for (let o = 0; o < out; o++) {
        columns[o]! += dy[t * out + o]!
        for (let i = 0; i < inner; i++) sums[o * inner + i]! += dy[t * out + o]! * x[t * inner + i]!
      }
    expectClose(await download(dWeight), sums)
    expectClose(await download(dBias), columns)
  })

  it("the gradient of a norm's weight over 1000 rows is the rows' sum", async () => {
    const [rows, hidden] = [1000, 37]
    const [dy, x, rstd] = [noise(rows * hidden, 1), noise(rows * hidden, 2), noise(rows, 3)]
    const dWeight = upload([hidden], noise(hidden, 4))
    const given = { dy: upload([rows, hidden], dy), x: upload([rows, hidden], x), rstd: upload([rows], rstd) }
    const dx = upload([rows, hidden], dy)
    backend.ops.rmsNormBackward({ ...given, dx, weight: upload([hidden], noise(hidden, 5)), dWeight })
    const sums = Float64Array.from(noise(hidden, 4))
    for (let t = 0; t < rows; t++)
      for (let i = 0; i < hidden; i++) sums[i]! += dy[t * hidden + i]! * x[t * hidden + i]! * rstd[t]!
    expectClose(await download(dWeight), sums)
  })

  it('keys that 3000 queries read get the sum of what each segment alone gives them', async () => {
    const [segments, length, shared] = [75, 40, 70]
    const slots = shared + segments * length
    const sizes = { heads: 2, kvHeads: 1, headDim: 8 }
    const [q, k, v, dOut] = [1, 2, 3, 4].map((seed) => noise(slots * (seed === 1 || seed === 4 ? 16 : 8), seed))
    const runs = Array.from({ length: segments }, (_, s) => shared + s * length)
    const tensors = { q: upload([slots, 16], q!), k: upload([slots, 8], k!), v: upload([slots, 8], v!) }
    const backward = async (starts: readonly number[]) => {
      const context = starts.flatMap((start) => [
        ...Array.from({ length: shared }, (_, i) => i),
        ...Array.from({ length }, (_, i) => start + i),
      ])
      const all = starts.flatMap((start, i) => [start, length, i * (shared + length), shared + length])
      const plan: AttentionPlan = {
        ...{ segments: upload([starts.length, 4], Int32Array.from(all)), segmentCount: starts.length },
        context: upload([context.length], Int32Array.from(context)),
      }
      const empty = (width: number) => upload([slots, width], new Float32Array(slots * width))
      const [out, lse, dq, dk, dv] = [empty(16), empty(2), empty(16), empty(8), empty(8)] as const
      backend.ops.attention({ ...tensors, ...sizes, out, lse, plan })
      backend.ops.attentionBackward({ ...tensors, ...sizes, out, lse, plan, dq, dk, dv, dOut: upload([slots, 16], dOut!) })
      return [await download(dk), await download(dv)] as const
    }
    const [dk, dv] = await backward(runs)
    const [sumK, sumV] = [new Float64Array(slots * 8), new Float64Array(slots * 8)]
    for (const run of runs) {
      const [ownK, ownV] = await backward([run])
      for (let i = 0; i < sumK.length; i++) {
        sumK[i]! += ownK[i]!
        sumV[i]! += ownV[i]!
      }
    }
    expectClose(dk, sumK)
    expectClose(dv, sumV)
  })
})
