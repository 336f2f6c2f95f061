// Values as a GGUF file stores them. Block layouts: ggml-quants.c of https://github.com/ggml-org/ggml.

import { GGMLQuantizationType } from '@huggingface/gguf'
import { float32ToBf16, float32ToF16 } from './file-reader'

export const GGUF_TYPES = ['f32', 'f16', 'bf16', 'q8_0'] as const
export type GgufType = (typeof GGUF_TYPES)[number]

interface Encoding {
  /** The number that a tensor's entry in the header carries. */
  readonly id: number
  /** What `general.file_type` says of a file whose matrices are of this type. */
  readonly fileType: number
  /** Values and bytes of a block; a row is a whole number of blocks. */
  readonly values: number
  readonly bytes: number
  readonly encode: (values: Float32Array) => Uint8Array
}

export const ENCODINGS: Readonly<Record<GgufType, Encoding>> = {
  f32: { id: GGMLQuantizationType.F32, fileType: 0, values: 1, bytes: 4, encode: bytesOf },
  f16: { id: GGMLQuantizationType.F16, fileType: 1, values: 1, bytes: 2, encode: (values) => bytesOf(float32ToF16(values)) },
  bf16: { id: GGMLQuantizationType.BF16, fileType: 32, values: 1, bytes: 2, encode: (values) => bytesOf(float32ToBf16(values)) },
  q8_0: { id: GGMLQuantizationType.Q8_0, fileType: 7, values: 32, bytes: 34, encode: encodeQ8 },
}

/** Norms and biases stay f32, as llama.cpp wants them; a matrix whose rows don't fill blocks is kept in f16. */
export function typeFor(shape: readonly number[], wish: GgufType): GgufType {
  if (shape.length < 2) return 'f32'
  return shape.at(-1)! % ENCODINGS[wish].values === 0 ? wish : 'f16'
}

/** Q8_0: blocks of an f16 scale and 32 signed bytes. A byte counts steps of the scale before it is rounded to f16, as ggml does it. */
function encodeQ8(values: Float32Array): Uint8Array {
  const out = new Uint8Array((values.length / 32) * 34)
  const scaleOf = new Float32Array(1)
  for (let i = 0, at = 0; i < values.length; i += 32, at += 34) {
    let largest = 0
    for (let j = i; j < i + 32; j++) largest = Math.max(largest, Math.abs(values[j]!))
    scaleOf[0] = largest / 127
    const steps = scaleOf[0] === 0 ? 0 : 1 / scaleOf[0]
    const half = float32ToF16(scaleOf)[0]!
    out[at] = half & 255
    out[at + 1] = half >> 8
    for (let j = 0; j < 32; j++) {
      const step = values[i + j]! * steps
      out[at + 2 + j] = Math.sign(step) * Math.floor(Math.abs(step) + 0.5)
    }
  }
  return out
}

function bytesOf(values: Float32Array | Uint16Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
}
