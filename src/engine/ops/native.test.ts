import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { BackendError } from '../../errors'
import { ensureNative, nativeStatus } from './build-native'
import { describeOps } from './describe-ops'
import { type NativeLibrary, openNative } from './native'
import { prototypes } from './native-library'
import { openBackend } from './open-backend'
import type { Backend, Tensor } from './ops'

let library: NativeLibrary
beforeAll(async () => {
  library = await ensureNative()
}, 600_000)

describeOps('native f32', async () => openNative(library, { precision: 'f32' }))
// Both operands are rounded to 8 bits: each product is off by at most 2^-8 of its size, and a sum of them can be smaller than they are.
describeOps('native bf16', async () => openNative(library, { precision: 'bf16' }), { rounded: 1.5e-2 })

const noise = (count: number, seed: number) =>
  Float32Array.from({ length: count }, (_, i) => Math.sin(i * 12.9898 + seed * 78.233))

describe('native backend', () => {
  let backend: Backend
  beforeAll(() => {
    backend = openNative(library)
  })
  afterAll(() => backend.close())

  const upload = (shape: readonly number[], data: Float32Array | Int32Array): Tensor => {
    const tensor = backend.arena(data.byteLength).tensor(shape, data instanceof Int32Array ? 'i32' : 'f32')
    backend.upload(tensor, data)
    return tensor
  }

  it('an index that points nowhere surfaces at the next download, once, and the stream goes on', async () => {
    const table = upload([3, 4], noise(12, 1))
    const out = upload([1, 4], noise(4, 2))
    backend.ops.embed({ out, table, ids: upload([1], Int32Array.of(3)) })
    await expect(backend.download(out)).rejects.toThrow(
      new BackendError('arbor_embed: token id 3 is outside 0 to 2', { op: 'status' }),
    )
    backend.ops.fill(out, 2)
    expect(await backend.download(out)).toEqual(Float32Array.of(2, 2, 2, 2))
  })

  it('a shape that does not fit is an error at the call, with the shape', () => {
    const x = upload([2, 4], noise(8, 1))
    const weight = upload([3, 5], noise(15, 1))
    expect(() => backend.ops.linear({ y: x, x, weight })).toThrow('columns of x and of the weight differ: 4 and 5')
    expect(() => backend.ops.swiglu({ y: x, gateUp: x })).toThrow('swiglu: gateUp is [2,4], but 16 elements are needed.')
    expect(() => backend.upload(x, noise(7, 1))).toThrow('7 values for a tensor [2,4]')
  })

  it('data given to upload may change at once: the stream has its own copy', async () => {
    const data = noise(1 << 16, 3)
    const target = upload([data.length], data)
    for (let i = 0; i < 50; i++) backend.ops.fill(target, i) // keeps the stream busy, so the upload has to wait
    const kept = data.slice()
    backend.upload(target, data)
    data.fill(0)
    expect(await backend.download(target)).toEqual(kept)
  })

  it('downloads give what was there when they were asked for, in any number at once', async () => {
    const x = upload([4], noise(4, 1))
    const answers = Array.from({ length: 20 }, (_, i) => {
      backend.ops.fill(x, i)
      return backend.download(x)
    })
    expect((await Promise.all(answers)).map((data) => data[0])).toEqual(Array.from({ length: 20 }, (_, i) => i))
  })

  it('many backends work at the same time, each in its own order', async () => {
    const open = Array.from({ length: 6 }, () => openNative(library))
    const results = open.map(async (one, i) => {
      const arena = one.arena(1 << 20)
      const [x, y] = [arena.tensor([64, 256]), arena.tensor([64, 256])]
      one.upload(x, noise(64 * 256, i))
      const weight = one.prepareWeight([256, 256], noise(256 * 256, 1))
      for (let step = 0; step < 10; step++) {
        one.ops.linear({ y, x, weight })
        one.ops.rmsNorm({ y: x, rstd: arena.tensor([64]), x: y, weight: x.rows(0, 1), eps: 1e-5 })
      }
      return one.download(y)
    })
    const [first] = await Promise.all(results)
    expect(first!.every(Number.isFinite)).toBe(true)
    for (const one of open) one.close()
  })

  it('an arena grows, and what was taken before stays', async () => {
    const arena = backend.arena(256)
    const small = arena.tensor([8])
    backend.ops.fill(small, 7)
    const large = arena.tensor([100_000])
    backend.ops.fill(large, 1)
    expect((await backend.download(small))[7]).toBe(7)
    arena.close()
  })

  it('a download into an array of the caller fills it, and says so when it is of another length', async () => {
    const backend = openNative(library)
    const x = backend.arena(64).tensor([3])
    backend.upload(x, Float32Array.of(1, 2, 3))
    const room = new Float32Array(20)
    const into = room.subarray(4, 7)
    expect(await backend.download(x, into)).toBe(into)
    expect([...room.subarray(3, 8)]).toEqual([0, 1, 2, 3, 0])
    await expect(backend.download(x, room)).rejects.toThrow('A tensor [3] into 20 values.')
    backend.close()
  })

  it('a closed backend says so, finishes the downloads that are under way, and closes once', async () => {
    const one = openNative(library)
    const arena = one.arena(1 << 22)
    const x = arena.tensor([1 << 20])
    for (let i = 0; i < 20; i++) one.ops.fill(x, i)
    const last = one.download(x)
    one.close()
    one.close()
    expect((await last)[5]).toBe(19)
    expect(() => one.ops.fill(x, 1)).toThrow(BackendError)
    expect(() => one.upload(x, new Float32Array(1 << 20))).toThrow('The backend is closed.')
    arena.close()
  })

  it('a capture can hold neither uploads nor downloads', async () => {
    const x = upload([4], noise(4, 1))
    expect(() => backend.capture(() => backend.upload(x, noise(4, 2)))).toThrow('upload before the replay')
    let inside: Promise<unknown> = Promise.resolve()
    backend.capture(() => {
      inside = backend.download(x)
    })
    await expect(inside).rejects.toThrow("a capture can't wait")
  })
})

describe('the library on disk', () => {
  it('is found again without a build, and described', async () => {
    const lines: string[] = []
    expect(await ensureNative({ log: (line) => lines.push(line) })).toEqual(library)
    expect(lines).toEqual([])
    expect(await nativeStatus()).toMatchObject({ found: true, path: library.path, missing: null })
    expect(library.description).toMatch(/^(scalar|avx2|avx512|avx512bf16|amx), .*matrix products.*, \d+ threads?$/)
  })

  it('is reported as not built in a fresh home, and a wrong ARBOR_MAX_ISA is named', async () => {
    const home = mkdtempSync(join(tmpdir(), 'arbor-home-'))
    const before = { home: process.env['ARBOR_HOME'], isa: process.env['ARBOR_MAX_ISA'] }
    try {
      process.env['ARBOR_HOME'] = home
      expect(await nativeStatus()).toMatchObject({ found: false, path: null })
      process.env['ARBOR_MAX_ISA'] = 'sse9'
      await expect(ensureNative()).rejects.toThrow('ARBOR_MAX_ISA is "sse9"; it takes scalar, avx2, avx512, avx512bf16, amx.')
    } finally {
      restore('ARBOR_HOME', before.home)
      restore('ARBOR_MAX_ISA', before.isa)
      rmSync(home, { recursive: true })
    }
  })

  it('its prototypes are read from the header', () => {
    const header =
      'typedef struct s s;\n// ARBOR_API int no(void);\nARBOR_API int32_t arbor_x(arbor_stream *stream, // first\n  float *y);\n'
    expect([...prototypes(header)]).toEqual([['arbor_x', 'int32_t arbor_x(void *stream, float *y)']])
  })
})

describe.each([
  ['native', async () => openNative(await ensureNative()), 'A CPU|a CPU'],
  ['tfjs', () => openBackend('tfjs'), 'TensorFlow.js'],
] as const)('a group of devices on %s', (_, open, named) => {
  it('may have one member, whose sum is what it has', async () => {
    const backend = await open()
    const x = backend.arena(64).tensor([3])
    backend.upload(x, Float32Array.of(1, -2, 3))
    await backend.group.join({ id: backend.group.id(), ranks: 1, rank: 0 })
    await backend.group.sum([x])
    expect(await backend.download(x)).toEqual(Float32Array.of(1, -2, 3))
    backend.group.leave()
    backend.close()
  })

  it('of more is refused in words', async () => {
    const backend = await open()
    const place = { id: backend.group.id(), ranks: 3, rank: 1 }
    await expect(backend.group.join(place)).rejects.toThrow(new RegExp(`(${named}) is one device; it can't sum with 2 others`))
    expect(backend.group.joined).toBe(false)
    backend.close()
  })
})

describe('openBackend', () => {
  it('says what is missing when cuda is asked for, and names a wrong device', async () => {
    await expect(openBackend('cuda')).rejects.toThrow(/No NVIDIA GPU answers.*"cpu" or "auto"/)
    const before = process.env['ARBOR_DEVICE']
    process.env['ARBOR_DEVICE'] = 'tpu'
    await expect(openBackend('auto')).rejects.toThrow('ARBOR_DEVICE is "tpu"; it takes auto, cpu, cuda, tfjs.')
    restore('ARBOR_DEVICE', before)
  })
})

function restore(name: string, value: string | undefined): void {
  if (value === undefined) delete process.env[name]
  else process.env[name] = value
}
