// Random numbers that depend on their seeds alone: xoshiro128** (Blackman and Vigna), its state filled from hashed seeds.

export class Random {
  readonly #state = new Uint32Array(4)

  /** Any numbers and words; the same ones in the same order give the same draws. */
  constructor(...seeds: readonly (number | string)[]) {
    let hash = 0x9e3779b9
    for (const seed of seeds) hash = typeof seed === 'string' ? hashText(seed, hash) : mix(hash ^ mix(seed))
    for (let i = 0; i < 4; i++) this.#state[i] = hash = mix(hash + 0x6d2b79f5)
    this.#state[0]! |= 1 // a state of zeros would stay zero
  }

  /** 32 random bits. */
  next(): number {
    const s = this.#state
    const [a, b, c, d] = [s[0]!, s[1]!, s[2]!, s[3]!]
    const result = Math.imul(rotate(Math.imul(b, 5), 7), 9) >>> 0
    const [c1, d1] = [c ^ a, d ^ b]
    s[1] = b ^ c1
    s[0] = a ^ d1
    s[2] = c1 ^ (b << 9)
    s[3] = rotate(d1, 11)
    return result
  }

  /** A number in [0, 1). */
  float(): number {
    return this.next() / 2 ** 32
  }

  /** A whole number in [0, count). */
  below(count: number): number {
    return Math.floor(this.float() * count)
  }

  chance(probability: number): boolean {
    return this.float() < probability
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!
  }

  /** A key of `shares`, each as often as its share says; the shares add up to 1. */
  pickShare<K extends string>(shares: Readonly<Record<K, number>>): K {
    const keys = Object.keys(shares) as K[]
    let rest = this.float()
    for (const key of keys) if ((rest -= shares[key]) < 0) return key
    return keys.at(-1)! // the shares' rounding left a hair's breadth
  }

  /** A copy of the list in random order (Fisher and Yates). */
  shuffle<T>(list: readonly T[]): T[] {
    const copy = [...list]
    for (let i = copy.length - 1; i > 0; i--) {
      const j = this.below(i + 1)
      ;[copy[i], copy[j]] = [copy[j]!, copy[i]!]
    }
    return copy
  }
}

/** 32 bits of a text: FNV-1a, then mixed. */
export function hashText(text: string, start = 0x811c9dc5): number {
  let hash = start
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return mix(hash)
}

/** Every bit of the input changes about half the bits of the output (murmur3's finalizer). */
function mix(value: number): number {
  let bits = value | 0
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b)
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35)
  return (bits ^ (bits >>> 16)) >>> 0
}

function rotate(value: number, by: number): number {
  return (value << by) | (value >>> (32 - by))
}
