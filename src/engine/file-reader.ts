// Reading numbers out of weight files: bounds-checked reads by offset, and the two half-precision formats. Little-endian hosts only, as are the files.

import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { ModelError } from '../errors'

/** Largest single read; Node refuses 2 GiB and more at once. */
const CHUNK = 1 << 30

/** An open file that is read by offset. Every error is a ModelError that names the file. */
export class FileReader {
  readonly path: string
  readonly size: number
  readonly #fd: number
  #open = true

  constructor(path: string) {
    try {
      this.#fd = openSync(path, 'r')
    } catch (cause) {
      throw new ModelError(`${path}: cannot be opened (${(cause as NodeJS.ErrnoException).code ?? cause}).`, { cause })
    }
    this.path = path
    this.size = fstatSync(this.#fd).size
  }

  /** Fills `target` from byte `offset`. */
  read(target: Uint8Array, offset: number): void {
    if (!this.#open) throw new ModelError(`${this.path}: read after close.`)
    this.expectSize(offset + target.byteLength)
    let done = 0
    while (done < target.byteLength) {
      const count = readSync(this.#fd, target, done, Math.min(CHUNK, target.byteLength - done), offset + done)
      if (count === 0) throw cutShort(this.path, offset + target.byteLength, offset + done)
      done += count
    }
  }

  /** Throws unless the file holds at least `bytes` bytes. */
  expectSize(bytes: number): void {
    if (this.size < bytes) throw cutShort(this.path, bytes, this.size)
  }

  close(): void {
    if (this.#open) closeSync(this.#fd)
    this.#open = false
  }
}

function cutShort(path: string, expected: number, actual: number): ModelError {
  return new ModelError(
    `${path}: the file is cut short: its header asks for ${expected} bytes, it has ${actual}. Delete it and fetch the model again.`,
  )
}

/** bfloat16 is the upper half of an f32. */
export function bf16ToFloat32(bits: Uint16Array): Float32Array {
  const out = new Uint32Array(bits.length)
  for (let i = 0; i < bits.length; i++) out[i] = bits[i]! << 16
  return new Float32Array(out.buffer)
}

/** Rounds to the nearest bfloat16, a tie to the even one; what is not a number stays so. */
export function float32ToBf16(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length)
  const out = new Uint16Array(values.length)
  for (let i = 0; i < out.length; i++) {
    const full = bits[i]!
    out[i] = Number.isNaN(values[i]) ? 0x7fc0 : (full + 0x7fff + ((full >>> 16) & 1)) >>> 16
  }
  return out
}

let halfTable: Float32Array | null = null

/** All 65536 IEEE half-precision values, by their bits; made at first use. */
export function halfValues(): Float32Array {
  if (halfTable) return halfTable
  const table = new Float32Array(65536)
  for (let bits = 0; bits < 65536; bits++) {
    const exponent = (bits >> 10) & 31
    const fraction = bits & 1023
    const sign = bits & 0x8000 ? -1 : 1
    if (exponent === 0) table[bits] = sign * fraction * 2 ** -24
    else if (exponent === 31) table[bits] = fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY
    else table[bits] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
  }
  halfTable = table
  return table
}

/** IEEE half precision to f32. */
export function f16ToFloat32(bits: Uint16Array): Float32Array {
  const table = halfValues()
  const out = new Float32Array(bits.length)
  for (let i = 0; i < bits.length; i++) out[i] = table[bits[i]!]!
  return out
}

/** Rounds to the nearest IEEE half, a tie to the even one; beyond 65504 is infinity. */
export function float32ToF16(values: Float32Array): Uint16Array {
  const out = new Uint16Array(values.length)
  const single = new Float32Array(1)
  const bits = new Uint32Array(single.buffer)
  for (let i = 0; i < out.length; i++) {
    single[0] = values[i]!
    const full = bits[0]!
    const sign = (full >>> 16) & 0x8000
    const magnitude = full & 0x7fffffff
    if (magnitude > 0x7f800000) out[i] = sign | 0x7e00
    else if (magnitude >= 0x477ff000) out[i] = sign | 0x7c00
    else if (magnitude >= 0x38800000) out[i] = sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13)
    else out[i] = sign | roundToEven(Math.abs(single[0]!) * 2 ** 24) // a subnormal counts steps of 2^-24
  }
  return out
}

function roundToEven(value: number): number {
  const floor = Math.floor(value)
  const rest = value - floor
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor
}
