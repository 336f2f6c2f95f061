import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { ModelError } from '../errors'
import { readSafetensors, readSafetensorsFolder, writeSafetensors } from './safetensors'

const folder = mkdtempSync(join(tmpdir(), 'arbor-safetensors-'))
afterAll(() => rmSync(folder, { recursive: true }))

/** A file with a header of our choice, to write types that writeSafetensors does not. */
function rawFile(name: string, header: object, data: Uint8Array): string {
  const json = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(json.length))
  const path = join(folder, name)
  writeFileSync(path, Buffer.concat([length, json, data]))
  return path
}

describe('safetensors', () => {
  const tensors = new Map([
    ['b', { shape: [2, 3], data: Float32Array.of(1, -2, 3.5, 1e-30, 0, -0) }],
    ['a', { shape: [1], data: Float32Array.of(7) }],
  ])

  it('what was written is read back bit for bit, with its metadata, and no temporary file stays', () => {
    const path = join(folder, 'round.safetensors')
    writeSafetensors(path, tensors, { format: 'pt' })
    const file = readSafetensors(path)
    expect(file.names).toEqual(['b', 'a'])
    expect(file.shape('b')).toEqual([2, 3])
    expect(file.metadata).toEqual({ format: 'pt' })
    expect(new Uint32Array(file.read('b').buffer)).toEqual(new Uint32Array(tensors.get('b')!.data.buffer))
    expect(file.read('a')).toEqual(Float32Array.of(7))
    expect(readFileSync(path).length % 8).toBe(4) // 7 values of 4 bytes after an aligned header
    file.close()
    expect(readdirSync(folder).filter((name) => name.endsWith('.tmp'))).toEqual([])
  })

  it('bf16 rounds to the nearest, a tie to the even one', () => {
    const path = join(folder, 'brain.safetensors')
    // One bit of bf16 at 1 is 2^-7: a tie below, a tie above, just past a tie; then the largest f32, which rounds up to infinity.
    const values = Float32Array.of(
      1 + 2 ** -8,
      1 + 3 * 2 ** -8,
      1 + 2 ** -8 + 2 ** -23,
      -3.3,
      3.4028234663852886e38,
      Number.NaN,
      -0,
    )
    writeSafetensors(path, new Map([['x', { shape: [7], data: values }]]), {}, { dtype: 'BF16' })
    const file = readSafetensors(path)
    const back = [1, 1 + 2 ** -6, 1 + 2 ** -7, -3.296875, Number.POSITIVE_INFINITY, Number.NaN, -0]
    expect([...file.read('x')]).toEqual(back)
    file.close()
    expect(readFileSync(path).length % 8).toBe(6) // 7 values of 2 bytes
  })

  it('half precision types become the f32 of the same value', () => {
    const bits = Uint16Array.of(0x3c00, 0xc000, 0x0001, 0x7bff, 0x7c00, 0x8000) // f16: 1, -2, 2^-24, 65504, Infinity, -0
    const f16 = rawFile(
      'f16.safetensors',
      { x: { dtype: 'F16', shape: [6], data_offsets: [0, 12] } },
      new Uint8Array(bits.buffer),
    )
    expect([...readSafetensors(f16).read('x')]).toEqual([1, -2, 2 ** -24, 65504, Number.POSITIVE_INFINITY, -0])
    const brain = Uint16Array.of(0x3f80, 0xc040, 0x4049) // bf16: 1, -3, 3.140625
    const bf16 = rawFile(
      'bf16.safetensors',
      { x: { dtype: 'BF16', shape: [3], data_offsets: [0, 6] } },
      new Uint8Array(brain.buffer),
    )
    expect([...readSafetensors(bf16).read('x')]).toEqual([1, -3, 3.140625])
  })

  it('a truncated file is refused when opened, with its name, expected and actual size', () => {
    const path = join(folder, 'cut.safetensors')
    writeSafetensors(path, tensors)
    const size = readFileSync(path).length
    truncateSync(path, size - 5)
    expect(() => readSafetensors(path)).toThrow(ModelError)
    expect(() => readSafetensors(path)).toThrow(new RegExp(`cut\\.safetensors.*${size} bytes, it has ${size - 5}`))
    truncateSync(path, 3)
    expect(() => readSafetensors(path)).toThrow(/8 bytes, it has 3/)
  })

  it('an unsound header is refused: no JSON, absurd length, range that does not fit the shape', () => {
    const absurd = join(folder, 'absurd.safetensors')
    writeFileSync(absurd, Buffer.alloc(64, 0xff))
    expect(() => readSafetensors(absurd)).toThrow(/not a safetensors file/)
    const range = rawFile('range.safetensors', { x: { dtype: 'F32', shape: [3], data_offsets: [0, 8] } }, new Uint8Array(8))
    expect(() => readSafetensors(range)).toThrow(/"x" \(F32 \[3\]\) does not fit its byte range \[0,8\]/)
    const entry = rawFile('entry.safetensors', { x: { dtype: 'F32', shape: [-1], data_offsets: [0, 4] } }, new Uint8Array(8))
    expect(() => readSafetensors(entry)).toThrow(/entry of tensor "x" is not sound/)
    const text = join(folder, 'text.safetensors')
    writeFileSync(text, Buffer.concat([Buffer.from([4, 0, 0, 0, 0, 0, 0, 0]), Buffer.from('nope')]))
    expect(() => readSafetensors(text)).toThrow(/not JSON/)
  })

  it('an unsupported type and an unknown name are named, with what to use instead', () => {
    const path = rawFile('i8.safetensors', { x: { dtype: 'I8', shape: [4], data_offsets: [0, 4] } }, new Uint8Array(4))
    expect(() => readSafetensors(path).read('x')).toThrow(/"x" has type I8\. Supported: F32, F16, BF16/)
    writeSafetensors(path, tensors)
    expect(() => readSafetensors(path).read('aa')).toThrow(/no tensor "aa"\. The nearest name is "a"/)
  })

  it('a folder of shards reads as one file', () => {
    writeSafetensors(join(folder, 'one.safetensors'), new Map([['x', { shape: [2], data: Float32Array.of(1, 2) }]]))
    writeSafetensors(join(folder, 'two.safetensors'), new Map([['y', { shape: [1], data: Float32Array.of(3) }]]))
    const index = join(folder, 'model.safetensors.index.json')
    writeFileSync(index, JSON.stringify({ weight_map: { x: 'one.safetensors', y: 'two.safetensors' } }))
    const weights = readSafetensorsFolder(folder)
    expect(weights.names).toEqual(['x', 'y'])
    expect(weights.read('y')).toEqual(Float32Array.of(3))
    expect(weights.has('toString')).toBe(false)
    expect(() => weights.read('z')).toThrow(ModelError)
    weights.close()
    writeFileSync(index, JSON.stringify({ weight_map: { x: 'gone.safetensors' } }))
    expect(() => readSafetensorsFolder(folder)).toThrow(/gone\.safetensors: cannot be opened \(ENOENT\)/)
  })
})
