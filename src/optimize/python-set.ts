// CPython's set of small non-negative integers, for its iteration order alone: a search that walks over a set and draws random numbers on the
// way depends on it. The order is that of the slots of an open-addressing table (Objects/setobject.c of CPython 3.11).

const MIN_SLOTS = 8
const LINEAR_PROBES = 9
const PERTURB_SHIFT = 5
const EMPTY = -1

/** A set whose iteration order is CPython's. Nothing is ever removed. @example [...new PythonSet([9, 3])] // [9, 3], as 9 falls into slot 1 */
export class PythonSet {
  #slots = new Int32Array(MIN_SLOTS).fill(EMPTY)
  #size = 0

  /** As `set(values)`: a set is copied table by table, anything else is added item by item. */
  constructor(values: Iterable<number> = []) {
    if (values instanceof PythonSet) this.#merge(values)
    else for (const value of values) this.add(value)
  }

  get size(): number {
    return this.#size
  }

  has(value: number): boolean {
    return this.#slots[this.#find(value)] === value
  }

  add(value: number): this {
    const slot = this.#find(value)
    if (this.#slots[slot] === value) return this
    this.#slots[slot] = value
    this.#size++
    if (this.#size * 5 >= (this.#slots.length - 1) * 3) this.#resize(this.#size > 50_000 ? this.#size * 2 : this.#size * 4)
    return this
  }

  /** `this & other`: walks over the smaller one. */
  and(other: PythonSet): PythonSet {
    const [small, large] = other.size > this.size ? [this, other] : [other, this]
    return new PythonSet([...small].filter((value) => large.has(value)))
  }

  *[Symbol.iterator](): Generator<number> {
    for (const value of this.#slots) if (value !== EMPTY) yield value
  }

  #merge(other: PythonSet): void {
    if (other.#size * 5 >= (this.#slots.length - 1) * 3) this.#resize(other.#size * 2)
    if (this.#slots.length === other.#slots.length) this.#slots = other.#slots.slice()
    else for (const value of other) this.#slots[this.#find(value)] = value
    this.#size = other.#size
  }

  #resize(least: number): void {
    let slots = MIN_SLOTS
    while (slots <= least) slots *= 2
    const values = [...this]
    this.#slots = new Int32Array(slots).fill(EMPTY)
    for (const value of values) this.#slots[this.#find(value)] = value
  }

  /** The slot that holds the value, or the free one where it belongs: runs of neighbours, then jumps that mix in the hash's upper bits. */
  #find(value: number): number {
    const mask = this.#slots.length - 1
    let perturb = value
    for (let slot = value & mask; ; ) {
      const last = slot + LINEAR_PROBES <= mask ? slot + LINEAR_PROBES : slot
      for (let i = slot; i <= last; i++) if (this.#slots[i] === EMPTY || this.#slots[i] === value) return i
      perturb >>>= PERTURB_SHIFT
      slot = (slot * 5 + 1 + perturb) & mask
    }
  }
}
