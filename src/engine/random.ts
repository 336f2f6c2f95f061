// Reproducible random numbers for initial weights: the same on every machine, from a seed and a stream's number.

/** Uniform numbers in [0, 1) with 24 bits: mulberry32 from a mix of seed and stream. */
export function uniforms(seed: number, stream: number): () => number {
  let state = Math.imul(mix(seed >>> 0) ^ mix(Math.floor(seed / 2 ** 32) + 0x9e3779b9) ^ mix(stream + 0x85ebca6b), 0x9e3779b1)
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let z = Math.imul(state ^ (state >>> 15), state | 1)
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61)
    return ((z ^ (z >>> 14)) >>> 8) / 2 ** 24
  }
}

/** Normal numbers of mean 0 and deviation 1, two from each pair of uniform ones (Box and Muller, 1958). */
export function normals(seed: number, stream: number): () => number {
  const uniform = uniforms(seed, stream)
  let spare: number | null = null
  return () => {
    if (spare !== null) {
      const value = spare
      spare = null
      return value
    }
    const radius = Math.sqrt(-2 * Math.log(1 - uniform()))
    const angle = 2 * Math.PI * uniform()
    spare = radius * Math.sin(angle)
    return radius * Math.cos(angle)
  }
}

function mix(value: number): number {
  let z = Math.imul(value ^ (value >>> 16), 0x7feb352d)
  z = Math.imul(z ^ (z >>> 15), 0x846ca68b)
  return z ^ (z >>> 16)
}
