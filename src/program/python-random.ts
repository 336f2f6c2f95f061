// CPython's random.Random: the Mersenne Twister MT19937 and the drawing methods on top, so that a seed means the same as in Python.

const N = 624
const M = 397

/** `random.Random(seed)`. The seed is an integer of any size (its sign is ignored, as in Python); text is read as decimal digits. */
export class PythonRandom {
  readonly #state = new Uint32Array(N)
  #index = N

  constructor(seed: number | bigint | string) {
    let rest = BigInt(seed)
    if (rest < 0n) rest = -rest
    const key: number[] = []
    do {
      key.push(Number(rest & 0xffffffffn))
      rest >>= 32n
    } while (rest > 0n)
    this.#seedByArray(key)
  }

  /** numpy's `RandomState(seed)`: the same generator, seeded by one 32-bit word; `random()` is its `random_sample()`. */
  static fromWord(seed: number): PythonRandom {
    const random = new PythonRandom(0)
    random.#seedByWord(seed >>> 0)
    random.#index = N
    return random
  }

  /** A float in [0, 1) with 53 random bits. */
  random(): number {
    const high = this.#next() >>> 5
    const low = this.#next() >>> 6
    return (high * 67108864 + low) / 9007199254740992
  }

  /** `bits` random bits as a non-negative integer. */
  getrandbits(bits: number): bigint {
    if (bits < 0) throw new RangeError(`getrandbits(${bits}): the number of bits must not be negative`)
    let value = 0n
    for (let shift = 0; shift < bits; shift += 32) {
      const take = Math.min(32, bits - shift)
      value |= BigInt(this.#next() >>> (32 - take)) << BigInt(shift)
    }
    return value
  }

  /** An integer in [start, stop) in steps of `step`; with one argument in [0, start). */
  randrange(start: number, stop?: number, step = 1): number {
    if (stop === undefined) return this.#below(start)
    const width = stop - start
    const count = step > 0 ? Math.floor((width + step - 1) / step) : Math.floor((width + step + 1) / step)
    return start + step * this.#below(count)
  }

  /** An integer in [low, high], both ends included. */
  randint(low: number, high: number): number {
    return low + this.#below(high - low + 1)
  }

  /** A float between `a` and `b`. */
  uniform(a: number, b: number): number {
    return a + (b - a) * this.random()
  }

  /** One item. */
  choice<T>(items: readonly T[]): T {
    if (items.length === 0) throw new RangeError('choice from an empty list: give it at least one item')
    return items[this.#below(items.length)]!
  }

  /** `k` items drawn with replacement, evenly or by weight. */
  choices<T>(items: readonly T[], options: { weights?: readonly number[]; k?: number } = {}): T[] {
    const { weights, k = 1 } = options
    if (!weights) return Array.from({ length: k }, () => items[Math.floor(this.random() * items.length)]!)
    let total = 0
    const cumulative = weights.map((weight) => (total += weight))
    if (!(total > 0)) throw new RangeError(`choices: the weights sum to ${total}; they must sum to more than 0`)
    return Array.from({ length: k }, () => {
      const target = this.random() * total
      const index = cumulative.slice(0, -1).findIndex((edge) => target < edge)
      return items[index === -1 ? items.length - 1 : index]!
    })
  }

  /** Shuffles in place, from the last item down. */
  shuffle<T>(items: T[]): void {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.#below(i + 1)
      const item = items[i]!
      items[i] = items[j]!
      items[j] = item
    }
  }

  /** `k` items without replacement; Python's two methods (a pool, or a set of taken indices) draw different items. */
  sample<T>(items: readonly T[], k: number): T[] {
    const n = items.length
    if (k < 0 || k > n) throw new RangeError(`sample of ${k} items from ${n}: it must be between 0 and ${n}`)
    const setSize = 21 + (k > 5 ? 4 ** Math.ceil(Math.log(k * 3) / Math.log(4)) : 0)
    if (n > setSize) return this.#sampleByIndex(items, k)
    const pool = [...items]
    return Array.from({ length: k }, (_, i) => {
      const j = this.#below(n - i)
      const item = pool[j]!
      pool[j] = pool[n - i - 1]!
      return item
    })
  }

  #sampleByIndex<T>(items: readonly T[], k: number): T[] {
    const taken = new Set<number>()
    while (taken.size < k) {
      let index = this.#below(items.length)
      while (taken.has(index)) index = this.#below(items.length)
      taken.add(index)
    }
    return [...taken].map((index) => items[index]!)
  }

  /** Uniform in [0, n): draws of the bit length of n, rejected until one is below n. */
  #below(n: number): number {
    if (!(n > 0)) throw new RangeError(`empty range of ${n} numbers: nothing to draw from`)
    const bits = n < 2 ** 31 ? 32 - Math.clz32(n) : BigInt(n).toString(2).length
    let value = this.getrandbits(bits)
    while (value >= BigInt(n)) value = this.getrandbits(bits)
    return Number(value)
  }

  #seedByWord(word: number): void {
    const state = this.#state
    state[0] = word
    for (let i = 1; i < N; i++) state[i] = Math.imul(1812433253, state[i - 1]! ^ (state[i - 1]! >>> 30)) + i
  }

  #seedByArray(key: readonly number[]): void {
    const state = this.#state
    this.#seedByWord(19650218)
    let i = 1
    let j = 0
    for (let round = Math.max(N, key.length); round > 0; round--) {
      state[i] = (state[i]! ^ Math.imul(state[i - 1]! ^ (state[i - 1]! >>> 30), 1664525)) + key[j]! + j
      if (++i === N) [state[0], i] = [state[N - 1]!, 1]
      if (++j === key.length) j = 0
    }
    for (let round = N - 1; round > 0; round--) {
      state[i] = (state[i]! ^ Math.imul(state[i - 1]! ^ (state[i - 1]! >>> 30), 1566083941)) - i
      if (++i === N) [state[0], i] = [state[N - 1]!, 1]
    }
    state[0] = 0x80000000
  }

  #next(): number {
    if (this.#index === N) this.#twist()
    let value = this.#state[this.#index++]!
    value ^= value >>> 11
    value ^= (value << 7) & 0x9d2c5680
    value ^= (value << 15) & 0xefc60000
    return (value ^ (value >>> 18)) >>> 0
  }

  #twist(): void {
    const state = this.#state
    for (let i = 0; i < N; i++) {
      const bits = (state[i]! & 0x80000000) | (state[(i + 1) % N]! & 0x7fffffff)
      state[i] = state[(i + M) % N]! ^ (bits >>> 1) ^ (bits & 1 ? 0x9908b0df : 0)
    }
    this.#index = 0
  }
}
