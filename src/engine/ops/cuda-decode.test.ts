// A linear of decoding rows leaves its adapters to the op that reads its outputs (kernels/cuda/lora_up.cuh). Done there or on its own, every bit is
// the same.

import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { CUDA, openGpu } from '../../../test/emulator/gpu'
import type { Arena, Backend, LoraSlice, Tensor } from './ops'
import { toBf16 } from './tensors.fixture'

const ROWS = 11

let backend: Backend
beforeAll(async () => {
  backend = await openGpu('bf16')
})
afterAll(() => backend.close())

/** Values of a hash of their place. */
function noise(length: number, seed: number, size = 1): Float32Array {
  return Float32Array.from({ length }, (_, i) => {
    const wave = Math.sin((i + 1) * 12.9898 + seed * 78.233) * 43758.5453
    return (2 * (wave - Math.floor(wave)) - 1) * size
  })
}

interface Kit {
  tensor(shape: readonly number[], seed: number | null, dtype?: 'f32' | 'bf16'): Tensor
  ints(values: readonly number[]): Tensor
}

/** Rows 0 to 4 and 7 to 10 have an adapter each, the two between none. */
function slices({ tensor }: Kit, inner: number, parts: readonly number[], ranks: readonly [number, number]): LoraSlice[] {
  const out = parts.reduce((sum, part) => sum + part, 0)
  return [
    { rowStart: 0, rowCount: 5, seed: 1, rank: ranks[0] },
    { rowStart: 7, rowCount: 4, seed: 2, rank: ranks[1] },
  ].map(({ rowStart, rowCount, seed, rank }) => ({
    ...{ rowStart, rowCount, rank, scale: 1.7, parts },
    a: tensor([parts.length * rank, inner], 10 + seed),
    b: tensor([out, rank], 20 + seed),
    xa: tensor([rowCount, parts.length * rank], null),
  }))
}

/** An op that reads the linear's outputs: its tensors are there before the linear runs, so that nothing comes between the two. */
interface Following {
  readonly run: () => void
  readonly outputs: readonly Tensor[]
}

interface Case {
  readonly inner: number
  readonly parts: readonly number[]
  readonly following: (kit: Kit, y: Tensor) => Following
}

const CASES: Readonly<Record<string, Case>> = {
  swiglu: { inner: 40, parts: [96, 96], following: (kit, gateUp) => swiglu(kit, gateUp, 96) },
  'swiglu of an odd width': { inner: 40, parts: [72, 72], following: (kit, gateUp) => swiglu(kit, gateUp, 72) },
  'rope and the cache': { inner: 48, parts: [256, 128, 128], following: (kit, qkv) => rope(kit, qkv, 64) },
  'rope and the cache, small heads': { inner: 48, parts: [64, 32, 32], following: (kit, qkv) => rope(kit, qkv, 16) },
  'swiglu, k in 3 terms': { inner: 1152, parts: [64, 64], following: (kit, gateUp) => swiglu(kit, gateUp, 64) },
  'rope and the cache, k in 2 terms': { inner: 768, parts: [64, 64, 64], following: (kit, qkv) => rope(kit, qkv, 64, [1, 1]) },
  'the norm, k in 6 terms': { inner: 2304, parts: [64], following: (kit, y) => norm(kit, y, 64) },
  'the norm, k in 1 term': { inner: 128, parts: [640], following: (kit, y) => norm(kit, y, 640) },
  'the norm': { inner: 1100, parts: [640], following: (kit, y) => norm(kit, y, 640) },
  'the norm behind two members': { inner: 56, parts: [320, 320], following: (kit, y) => norm(kit, y, 640) },
  'the norm of wide rows': { inner: 56, parts: [4128], following: (kit, y) => norm(kit, y, 4128) },
  'the norm of rows of an odd width': { inner: 56, parts: [52], following: (kit, y) => norm(kit, y, 52) },
}

function swiglu({ tensor }: Kit, gateUp: Tensor, inner: number): Following {
  const y = tensor([ROWS, inner], null, 'bf16')
  return { run: () => backend.ops.swiglu({ y, gateUp }), outputs: [y] }
}

/** Of so many heads of queries, and of keys and values. */
function rope({ tensor, ints }: Kit, qkv: Tensor, headDim: number, [heads, kvHeads] = [4, 2] as [number, number]): Following {
  const [q, k, v] = [heads, kvHeads, kvHeads].map((heads, i) => tensor([i === 0 ? ROWS : 20, heads * headDim], null, 'bf16')) as [
    Tensor,
    Tensor,
    Tensor,
  ]
  const positions = ints(Array.from({ length: ROWS }, (_, i) => (5 * i) % 9))
  const slots = ints(Array.from({ length: ROWS }, (_, i) => (7 * i) % 20))
  const places = { positions, slots, rope: tensor([9, headDim], 6), heads, kvHeads, headDim }
  return { run: () => backend.ops.ropeStoreKv({ qkv, q, k, v, ...places }), outputs: [q, k, v] }
}

function norm({ tensor }: Kit, delta: Tensor, hidden: number): Following {
  const [y, sum, rstd] = [tensor([ROWS, hidden], null, 'bf16'), tensor([ROWS, hidden], null, 'bf16'), tensor([ROWS], null)]
  const [x, weight] = [tensor([ROWS, hidden], 7, 'bf16'), tensor([hidden], 8)]
  return { run: () => backend.ops.rmsNorm({ y, rstd, x, weight, eps: 1e-5, delta, sum }), outputs: [y, sum, rstd] }
}

/** Tensors of one arena: noise by its seed, zeros without one. */
function kitOf(arena: Arena): Kit {
  return {
    tensor(shape, seed, dtype = 'f32') {
      const tensor = arena.tensor(shape, dtype)
      const length = shape.reduce((count, size) => count * size, 1)
      const values = noise(length, seed ?? 0, seed === null ? 0 : 1)
      backend.upload(tensor, dtype === 'bf16' ? toBf16(values) : values)
      return tensor
    },
    ints(values) {
      const tensor = arena.tensor([values.length], 'i32')
      backend.upload(tensor, Int32Array.from(values))
      return tensor
    },
  }
}

interface Way {
  /** The linear's outputs are read before the op behind it is run. */
  readonly apart?: boolean
  /** The adapters lie beside the weight. */
  readonly laid?: boolean
}

/** x aᵀ and the outputs of the op behind the linear, as they lie on the device: the linear's own may be used up. */
async function outputsOf(
  { inner, parts, following }: Case,
  ranks: readonly [number, number],
  { apart = false, laid = false }: Way,
) {
  const arena = backend.arena(4 << 20)
  const kit = kitOf(arena)
  const out = parts.reduce((sum, part) => sum + part, 0)
  const loras = slices(kit, inner, parts, ranks)
  const [y, x, bias] = [kit.tensor([ROWS, out], null, 'bf16'), kit.tensor([ROWS, inner], 4, 'bf16'), kit.tensor([out], 5)]
  const weight = backend.prepareWeight([out, inner], noise(out * inner, 3), { adapted: true })
  const { run, outputs } = following(kit, y)
  if (laid) backend.ops.layAdapters([{ weight, adapters: loras }])
  backend.ops.linear({ y, x, weight, bias, loras, decode: true, laid })
  if (apart) await backend.download(y)
  run()
  const values = await Promise.all([...outputs, ...loras.map(({ xa }) => xa)].map((tensor) => backend.download(tensor)))
  arena.close()
  return values
}

describe(`adapters of rows that decode, on ${CUDA}`, () => {
  for (const [name, of] of Object.entries(CASES))
    it.each([
      [8, 8],
      [16, 16],
      [32, 32],
      [16, 8],
      [3, 3],
    ] as const)(`${name}: ranks %i and %i, the same bits in the op that follows as before it`, async (...ranks) => {
      const apart = await outputsOf(of, ranks, { apart: true })
      expect(await outputsOf(of, ranks, {})).toEqual(apart)
      expect(await outputsOf(of, ranks, { laid: true })).toEqual(apart)
      expect(await outputsOf(of, ranks, { laid: true, apart: true })).toEqual(apart)
      for (const values of apart) expect(values.some((value) => value !== 0)).toBe(true)
    })

  it.each([8, 16, 32, 3, 12])(
    'rows under an adapter of rank %i have the same bits whatever rank the one beside has',
    async (rank) => {
      const of = CASES['the norm']!
      const [width] = of.parts
      const first = async (beside: number) =>
        (await outputsOf(of, [rank, beside], { laid: true })).slice(0, 2).map((values) => values.slice(0, 5 * width!))
      const alike = await first(rank)
      for (const beside of [3, 8, 16, 40, 384]) expect(await first(beside)).toEqual(alike)
    },
  )

  // Up to 64 rows have a kernel of their own, more are cuBLASLt's, and k is divided where W has few rows.
  it.each([
    [64, 2304, 16],
    [64, 1536, 0],
    [128, 768, 16],
    [640, 128, 16],
    [640, 128, 0],
    [1280, 128, 16], // more blocks than are usual at once: the clock decides how many
    [72, 448, 3],
  ])(
    'of %i outputs and %i inputs a row has the same bits among any number of rows, adapter of rank %i',
    async (out, inner, rank) => {
      const outputs = async (rows: number) => {
        const arena = backend.arena(8 << 20)
        const { tensor } = kitOf(arena)
        const adapter = { rank, scale: 1.5, parts: [out], a: tensor([rank, inner], 1), b: tensor([out, rank], 2) }
        const loras = rank === 0 ? [] : [{ rowStart: 0, rowCount: rows, ...adapter, xa: tensor([rows, rank], null) }]
        const [y, x] = [tensor([rows, out], null, 'bf16'), tensor([rows, inner], 3, 'bf16')]
        const weight = backend.prepareWeight([out, inner], noise(out * inner, 4))
        backend.ops.layAdapters([{ weight, adapters: loras }])
        backend.ops.linear({ y, x, weight, loras, decode: true, laid: true })
        const values = await backend.download(y)
        arena.close()
        return values
      }
      const many = await outputs(150)
      for (const rows of [1, 8, 11, 32, 64, 65])
        expect(
          Buffer.from((await outputs(rows)).buffer).compare(Buffer.from(many.slice(0, rows * out).buffer)),
          `${rows} rows`,
        ).toBe(0)
      expect(many.every((value) => value !== 0)).toBe(true)
    },
  )
})
