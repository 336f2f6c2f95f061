// Tensors of a test's own: filled from the host, read back.

import type { Backend, Tensor } from './ops'

/** `backend` is asked at each use: a test opens it after this. */
export function tensorsOn(backend: () => Backend) {
  return {
    upload(shape: readonly number[], data: Float32Array | Int32Array): Tensor {
      const tensor = backend()
        .arena(data.byteLength)
        .tensor(shape, data instanceof Int32Array ? 'i32' : 'f32')
      backend().upload(tensor, data)
      return tensor
    },
    download: async (tensor: Tensor) => (await backend().download(tensor)) as Float32Array,
  }
}

/** The upper half of each f32, rounded to the nearest even. */
export function toBf16(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(Float32Array.from(values).buffer)
  return Uint16Array.from(bits, (word) => (word + 0x7fff + ((word >>> 16) & 1)) >>> 16)
}
