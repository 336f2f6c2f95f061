import { describe, expect, it } from 'vitest'
import { OutOfMemoryError } from '../../errors'
import { BumpArena } from './arena'
import { HostTensor, values } from './tfjs-memory'

const hostArena = (bytes: number, freed: number[] = []) =>
  new BumpArena<ArrayBuffer>(
    { allocate: (size) => new ArrayBuffer(size), view: HostTensor.view, free: (block) => void freed.push(block.byteLength) },
    bytes,
  )

describe('arena', () => {
  it('carves tensors that do not overlap, each on a cache line', () => {
    const arena = hostArena(1024)
    const tensors = [[3, 5], [7], [2, 2]].map((shape) => arena.tensor(shape))
    for (const [i, tensor] of tensors.entries()) values(tensor).fill(i + 1)
    for (const [i, tensor] of tensors.entries()) {
      expect(new Set(values(tensor))).toEqual(new Set([i + 1]))
      expect(values(tensor).byteOffset % 64).toBe(0)
    }
    expect([arena.used, arena.capacity]).toEqual([64 + 64 + 64, 1024])
  })

  it('reset gives memory back from a mark on', () => {
    const arena = hostArena(1024)
    const kept = arena.tensor([4])
    const mark = arena.mark()
    const first = arena.tensor([4])
    arena.reset(mark)
    expect(values(arena.tensor([4])).byteOffset).toBe(values(first).byteOffset)
    arena.reset()
    expect(values(arena.tensor([4])).byteOffset).toBe(values(kept).byteOffset)
  })

  it('grows by further blocks, and uses them again after a reset', () => {
    const arena = hostArena(128)
    const shapes = [16, 32, 100, 3].map((n) => [n])
    const buffers = () => shapes.map((shape) => values(arena.tensor(shape)).buffer)
    const first = buffers()
    const capacity = arena.capacity
    expect(new Set(first).size).toBeGreaterThan(1)
    arena.reset()
    expect(buffers()).toEqual(first)
    expect(arena.capacity).toBe(capacity)
  })

  it('that can not grow to twice its size takes what is needed', () => {
    let left = 1000
    const allocate = (size: number) => {
      if (size > left) throw new OutOfMemoryError(`no memory for ${size} bytes`, { op: 'alloc' })
      left -= size
      return new ArrayBuffer(size)
    }
    const arena = new BumpArena<ArrayBuffer>({ allocate, view: HostTensor.view, free: () => {} }, 512)
    arena.tensor([128])
    arena.tensor([64])
    expect([arena.capacity, left]).toEqual([768, 232])
    expect(() => arena.tensor([128])).toThrow(/^no memory for 512 bytes$/)
    expect(arena.capacity).toBe(768)
  })

  it('reserves room in one piece, once, while nothing lies in it', () => {
    const freed: number[] = []
    const arena = hostArena(64, freed)
    arena.tensor([100])
    arena.reserve(4096)
    expect([arena.capacity, freed]).toEqual([512, []])
    arena.reset()
    arena.reserve(4000)
    expect([arena.capacity, freed]).toEqual([4032, [64, 448]])
    const buffers = [100, 800].map((length) => values(arena.tensor([length])).buffer)
    expect(new Set(buffers).size).toBe(1)
    arena.reset()
    arena.reserve(100)
    expect(arena.capacity).toBe(4032)
  })

  it('takes piece by piece what can not be had at once', () => {
    const allocate = (size: number) => {
      if (size > 1000) throw new OutOfMemoryError(`no memory for ${size} bytes`, { op: 'alloc' })
      return new ArrayBuffer(size)
    }
    const arena = new BumpArena<ArrayBuffer>({ allocate, view: HostTensor.view, free: () => {} }, 512)
    arena.reserve(2000)
    for (let i = 0; i < 4; i++) arena.tensor([125])
    expect(arena.used).toBeGreaterThanOrEqual(2000)
    expect(() => arena.tensor([300])).toThrow('no memory for 1216 bytes')
  })

  it('close frees every block and ends it', () => {
    const freed: number[] = []
    const arena = hostArena(64, freed)
    arena.tensor([100])
    arena.close()
    expect(freed).toEqual([64, 448])
    expect(() => arena.tensor([1])).toThrow(/closed/)
  })

  it('rows outside a tensor are an error', () => {
    const tensor = hostArena(64).tensor([4, 2])
    expect(tensor.rows(1, 3).shape).toEqual([3, 2])
    expect(() => tensor.rows(2, 3)).toThrow('Rows 2 to 5 of a tensor [4,2]')
  })
})
