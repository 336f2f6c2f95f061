// Attention beside other rows: a row's result has the same bits alone and in a crowd, and the crowd's common keys are packed once.

import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { packageRoot } from '../package-root'
import { ensureNative } from './build-native'
import { type NativeLibrary, openNative } from './native'
import { loadNative } from './native-library'
import type { Backend } from './ops'
import { tensorsOn } from './tensors.fixture'

const SIZES = { heads: 6, kvHeads: 2, headDim: 40 }
const [WIDTH, KV_WIDTH] = [SIZES.heads * SIZES.headDim, SIZES.kvHeads * SIZES.headDim]

const noise = (count: number, seed: number) =>
  Float32Array.from({ length: count }, (_, i) => Math.sin(i * 12.9898 + seed * 78.233) * 1.5)

/** Rows of one segment after the slots it reads; the last `rows` of them are its own. */
interface Sequence {
  readonly rows: number
  readonly slots: readonly number[]
}

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i)

/** `groups` x 4 sequences: 150 slots common to all, 70 to a group, then their own. */
function crowd(rows: number, groups: number): Sequence[] {
  let next = 150
  return range(0, groups).flatMap((group) => {
    const prompt = [...range(0, 150), ...range(next, (next += 70))]
    return range(0, 4).map((i) => ({ rows, slots: [...prompt, ...range(next, (next += rows + 3 * i + group))] }))
  })
}

describe('native attention: rows beside others', { timeout: 60_000 }, () => {
  let library: NativeLibrary
  let backend: Backend
  beforeAll(async () => {
    library = await ensureNative()
    backend = openNative(library)
  }, 600_000)
  afterAll(() => backend.close())

  const { upload, download } = tensorsOn(() => backend)
  const sharedBlocks = () => Number(loadNative(library.path).call('arbor_attention_shared_blocks')())

  /** Runs sequences [from, to) of a crowd, whose rows stay the same numbers whichever part of it runs. */
  async function run(all: readonly Sequence[], from: number, to: number) {
    const slots = 1 + Math.max(...all.flatMap((sequence) => sequence.slots))
    const before = all.slice(0, from).reduce((sum, { rows }) => sum + rows, 0)
    const part = all.slice(from, to)
    const tokens = part.reduce((sum, { rows }) => sum + rows, 0)
    const rowsOf = (seed: number) => upload([tokens, WIDTH], noise((before + tokens) * WIDTH, seed).slice(before * WIDTH))
    const keys = (seed: number) => upload([slots, KV_WIDTH], noise(slots * KV_WIDTH, seed))
    let [row, at] = [0, 0]
    const segments = part.flatMap((sequence) => {
      const segment = [row, sequence.rows, at, sequence.slots.length]
      row += sequence.rows
      at += sequence.slots.length
      return segment
    })
    const plan = {
      ...{ segments: upload([part.length, 4], Int32Array.from(segments)), segmentCount: part.length },
      context: upload([at], Int32Array.from(part.flatMap((sequence) => sequence.slots))),
    }
    const saved = { out: rowsOf(9), lse: upload([tokens, SIZES.heads], new Float32Array(tokens * SIZES.heads)) }
    const given = { ...SIZES, ...saved, plan, q: rowsOf(1), k: keys(2), v: keys(3) }
    const gradients = { dq: rowsOf(9), dk: keys(9), dv: keys(9) }
    backend.ops.attention(given)
    backend.ops.attentionBackward({ ...given, ...gradients, dOut: rowsOf(4) })
    const [out, lse, dq, dk, dv] = await Promise.all(
      [saved.out, saved.lse, gradients.dq, gradients.dk, gradients.dv].map(download),
    )
    return { out: out!, lse: lse!, dq: dq!, dk: dk!, dv: dv! }
  }

  it.each([
    { rows: 1, groups: 8 },
    { rows: 5, groups: 3 },
    { rows: 70, groups: 3 },
    { rows: 300, groups: 1 },
  ])(
    '$groups groups of 4 sequences, $rows rows each: every row as it is alone, and its own keys too',
    async ({ rows, groups }) => {
      const all = crowd(rows, groups)
      const together = await run(all, 0, all.length)
      for (let s = 0; s < all.length; s++) {
        const alone = await run(all, s, s + 1)
        const own = (data: Float32Array, width: number) => data.slice(s * rows * width, (s + 1) * rows * width)
        expect(own(together.out, WIDTH)).toEqual(alone.out)
        expect(own(together.lse, SIZES.heads)).toEqual(alone.lse)
        expect(own(together.dq, WIDTH)).toEqual(alone.dq)
        const first = all[s]!.slots.slice(220)[0]! * KV_WIDTH // its own slots follow one another
        const last = first + (all[s]!.slots.length - 220) * KV_WIDTH
        expect(together.dk.slice(first, last)).toEqual(alone.dk.slice(first, last))
        expect(together.dv.slice(first, last)).toEqual(alone.dv.slice(first, last))
      }
    },
  )

  it('rows of a decode pass share the packing of the blocks they have in common, and of no others', async () => {
    const all = crowd(1, 8)
    const start = sharedBlocks()
    for (let s = 0; s < all.length; s++) await run(all, s, s + 1)
    expect(sharedBlocks()).toBe(start)
    await run(all, 0, 4)
    // Three blocks of 64 lie in the group's 220 slots: at most three sequences join the first, under each key head.
    expect(sharedBlocks() - start).toBeGreaterThan(0)
    expect(sharedBlocks() - start).toBeLessThanOrEqual(3 * 3 * SIZES.kvHeads)
  })

  it('one thread and seven give the same bits', async () => {
    const digest = (threads: number) =>
      execFileSync(process.execPath, ['-e', DIGEST, join(packageRoot(), 'kernels', 'arbor_ops.h'), library.path], {
        env: { ...process.env, ARBOR_THREADS: String(threads) },
        encoding: 'utf8',
      })
    const one = digest(1)
    expect(one).toMatch(/^[0-9a-f]{64}$/)
    expect(digest(7)).toBe(one)
  })
})

/** A process of its own, as the number of threads is fixed at the first op: hashes what attention and its gradient give. */
const DIGEST = `
const koffi = require('koffi')
const header = require('fs').readFileSync(process.argv[1], 'utf8')
const library = koffi.load(process.argv[2])
const call = (name) => library.func(new RegExp('ARBOR_API\\\\s+([^;]+?' + name + '\\\\([^;]*\\\\));').exec(header)[1].replace(/arbor_stream \\*/g, 'void *'))
const floats = (count, seed) => Float32Array.from({ length: count }, (_, i) => Math.sin(i * 12.9898 + seed * 78.233))
const [heads, kvHeads, dim, tokens] = [4, 2, 24, 700]
const context = [...Array(tokens).keys(), ...Array(300).keys(), ...Array.from({ length: 100 }, (_, i) => 600 + i)]
const segments = Int32Array.of(0, 600, 0, 600, 600, 100, tokens, 400)
const rows = (seed) => floats(tokens * heads * dim, seed), keys = (seed) => floats(tokens * kvHeads * dim, seed)
const [out, lse, dq, dk, dv] = [rows(9), floats(tokens * heads, 9), rows(9), keys(9), keys(9)]
const [q, k, v, dOut, slots] = [rows(1), keys(2), keys(3), rows(4), Int32Array.from(context)]
const stream = call('arbor_open')(0), sizes = [2, context.length, tokens, tokens, heads, kvHeads, dim]
call('arbor_attention')(stream, 0, out, lse, q, k, v, segments, slots, ...sizes, 0, 0)
call('arbor_attention_backward')(stream, 0, dq, dk, dv, dOut, out, q, k, v, lse, segments, slots, ...sizes, 0)
call('arbor_close')(stream)
const hash = require('crypto').createHash('sha256')
for (const data of [out, lse, dq, dk, dv]) hash.update(new Uint8Array(data.buffer))
process.stdout.write(hash.digest('hex'))
`
