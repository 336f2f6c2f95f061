// The slots of a sequence's tokens in order: those of its place in the prefix tree, as one list with whoever else is there, and behind them its own.
// 512 rollouts of 64 prompts had 512 copies of a prompt's slots, which the collector then carried along.

const NONE = new Int32Array(0)

export class SlotList {
  /** Of the tree's tokens; not to be written to. */
  shared: Int32Array = NONE
  /** Of the tokens behind, this sequence's alone. */
  readonly own: number[] = []

  get length(): number {
    return this.shared.length + this.own.length
  }

  /** Undefined where there is none. */
  at(place: number): number | undefined {
    const { shared, own } = this
    return place < shared.length ? shared[place] : own[place - shared.length]
  }

  /** Of the last token; there is one. */
  get last(): number {
    return this.at(this.length - 1)!
  }

  push(slot: number): void {
    this.own.push(slot)
  }

  clear(): void {
    this.shared = NONE
    this.own.length = 0
  }

  /** Writes the first `count` to `entries` from `start` on. */
  copyTo(entries: Int32Array, start: number, count = this.length): void {
    const { shared, own } = this
    entries.set(count < shared.length ? shared.subarray(0, count) : shared, start)
    for (let i = shared.length; i < count; i++) entries[start + i] = own[i - shared.length]!
  }
}
