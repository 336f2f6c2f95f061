// numpy.random.default_rng(seed), as far as SIMBA draws from it: SeedSequence, PCG64 (XSL-RR 128/64) and the Poisson distribution.
// Source: numpy/random/bit_generator.pyx, src/pcg64/pcg64.h, src/distributions/distributions.c.

const M32 = 0xffffffffn
const M64 = (1n << 64n) - 1n
const M128 = (1n << 128n) - 1n
const MULTIPLIER = 0x2360ed051fc65da44385df649fccf645n

/** Numbers as numpy's default generator draws them from the same seed. */
export class NumpyRandom {
  #state: bigint
  readonly #increment: bigint

  /** @throws RangeError for a seed that is negative or no whole number */
  constructor(seed: number | bigint) {
    if (seed < 0 || (typeof seed === 'number' && !Number.isSafeInteger(seed)))
      throw new RangeError(`The seed is ${seed}; it must be a whole number from 0 on.`)
    const [stateHigh, stateLow, incHigh, incLow] = seedWords(BigInt(seed)) as [bigint, bigint, bigint, bigint]
    this.#increment = (((incHigh << 64n) | incLow) << 1n) | 1n
    this.#increment &= M128
    this.#state = 0n
    this.#step()
    this.#state = (this.#state + ((stateHigh << 64n) | stateLow)) & M128
    this.#step()
  }

  /** A float in [0, 1) with 53 random bits. */
  random(): number {
    return Number(this.#next64() >> 11n) / 2 ** 53
  }

  /** A Poisson number with mean `lam`. */
  poisson(lam: number): number {
    if (!(lam >= 0)) throw new RangeError(`poisson(${lam}): the mean must be a number from 0 on`)
    if (lam === 0) return 0
    return lam >= 10 ? this.#poissonRejection(lam) : this.#poissonProduct(lam)
  }

  /** Counts uniform factors until their product falls below e^−lam. */
  #poissonProduct(lam: number): number {
    const limit = Math.exp(-lam)
    let product = this.random()
    let count = 0
    for (; product > limit; count++) product *= this.random()
    return count
  }

  /** Hörmann's transformed rejection (PTRS, 1993). */
  #poissonRejection(lam: number): number {
    const b = 0.931 + 2.53 * Math.sqrt(lam)
    const a = -0.059 + 0.02483 * b
    const inverseAlpha = 1.1239 + 1.1328 / (b - 3.4)
    const vr = 0.9277 - 3.6224 / (b - 2)
    while (true) {
      const u = this.random() - 0.5
      const v = this.random()
      const us = 0.5 - Math.abs(u)
      const k = Math.floor(((2 * a) / us + b) * u + lam + 0.43)
      if (us >= 0.07 && v <= vr) return k
      if (k < 0 || (us < 0.013 && v > us)) continue
      const left = Math.log(v) + Math.log(inverseAlpha) - Math.log(a / (us * us) + b)
      if (left <= -lam + k * Math.log(lam) - logGamma(k + 1)) return k
    }
  }

  #step(): void {
    this.#state = (this.#state * MULTIPLIER + this.#increment) & M128
  }

  #next64(): bigint {
    this.#step()
    const mixed = (this.#state >> 64n) ^ (this.#state & M64)
    const turn = this.#state >> 122n
    return ((mixed >> turn) | (mixed << (64n - turn))) & M64
  }
}

/** `SeedSequence(seed).generate_state(4, uint64)`: hashes the seed into a pool of four words, and the pool into eight. */
function seedWords(seed: bigint): bigint[] {
  let hash = 0x43b0d7e5n
  const hashed = (value: bigint, multiplier: bigint) => {
    const mixed = value ^ hash
    hash = (hash * multiplier) & M32
    const product = (mixed * hash) & M32
    return product ^ (product >> 16n)
  }
  const mix = (x: bigint, y: bigint) => {
    const result = (0xca01f9ddn * x - 0x4973f715n * y) & M32
    return result ^ (result >> 16n)
  }
  const entropy: bigint[] = []
  for (let rest = seed; rest > 0n || entropy.length === 0; rest >>= 32n) entropy.push(rest & M32)
  const pool = Array.from({ length: 4 }, (_, i) => hashed(entropy[i] ?? 0n, 0x931e8875n))
  const stir = (word: bigint, to: number) => {
    pool[to] = mix(pool[to]!, hashed(word, 0x931e8875n))
  }
  for (let from = 0; from < 4; from++) for (let to = 0; to < 4; to++) if (from !== to) stir(pool[from]!, to)
  for (const word of entropy.slice(4)) for (let to = 0; to < 4; to++) stir(word, to)
  hash = 0x8b51f9ddn
  const words = Array.from({ length: 8 }, (_, i) => hashed(pool[i % 4]!, 0x58f38dedn))
  return [0, 2, 4, 6].map((i) => words[i]! | (words[i + 1]! << 32n))
}

/** Stirling's series of log Γ, with the argument shifted to 7 or more. */
function logGamma(x: number): number {
  if (x === 1 || x === 2) return 0
  const coefficients = [
    8.333333333333333e-2, -2.777777777777778e-3, 7.936507936507937e-4, -5.952380952380952e-4, 8.417508417508418e-4,
    -1.917526917526918e-3, 6.41025641025641e-3, -2.955065359477124e-2, 1.796443723688307e-1, -1.3924322169059,
  ]
  const shift = x < 7 ? Math.floor(7 - x) : 0
  let x0 = x + shift
  const inverse = 1 / (x0 * x0)
  let series = coefficients[9]!
  for (let k = 8; k >= 0; k--) series = series * inverse + coefficients[k]!
  let result = series / x0 + 0.5 * Math.log(2 * Math.PI) + (x0 - 0.5) * Math.log(x0) - x0
  for (let k = 0; k < shift; k++) result -= Math.log((x0 -= 1))
  return result
}
