// What the sequences of a pass may see, as one list of slots on the host and on the device. The slots of a sequence that decodes are laid out once,
// those set aside for its next tokens included: most decode passes then add nothing, and nothing of the list is uploaded.

import type { Sequence } from './sequence'
import type { SlotList } from './slot-list'

export class Contexts {
  readonly entries: Int32Array
  /** Where what this pass added begins. */
  changedFrom = 0
  #end = 0
  /** Of the places handed out; +1 when all begin anew. */
  #generation = 0

  constructor(capacity: number) {
    this.entries = new Int32Array(capacity)
  }

  /** Entries in use; those from `changedFrom` on are not on the device yet. */
  get end(): number {
    return this.#end
  }

  /** Begins anew: places handed out before are no longer good. */
  restart(): void {
    this.#generation++
    this.#end = this.changedFrom = 0
  }

  /** Where the first `count` of the slots are listed now. */
  add(slots: SlotList, count: number): number {
    const start = this.#end
    slots.copyTo(this.entries, start, count)
    this.#end = start + count
    return start
  }

  /** Sees to it that each sequence's slots are listed where its `context` says. */
  layOut(sequences: readonly Sequence[]): void {
    this.changedFrom = this.#end
    let missing = 0
    let all = 0
    for (const sequence of sequences) {
      const needed = sequence.slots.length + sequence.reserve.length
      all += needed
      if (!this.#knows(sequence)) missing += needed
    }
    if (missing === 0) return
    // What sequences left behind is cleared away when it is as much as what is needed.
    if (missing === all || this.#end + missing > Math.min(2 * all, this.entries.length)) {
      this.restart()
      missing = all
    }
    const ahead = this.#end + missing <= this.entries.length // else without what is set aside
    for (const sequence of sequences) if (!this.#knows(sequence)) this.#lay(sequence, ahead)
  }

  /** Slots set aside may have gone to another sequence meanwhile; of those used since, only the last can be wrong. */
  #knows({ context: { generation, start, length }, slots }: Sequence): boolean {
    const count = slots.length
    return generation === this.#generation && count <= length && this.entries[start + count - 1] === slots.last
  }

  #lay({ context, slots, reserve }: Sequence, ahead: boolean): void {
    context.generation = this.#generation
    context.start = this.add(slots, slots.length)
    if (ahead) for (let i = reserve.length - 1; i >= 0; i--) this.entries[this.#end++] = reserve[i]!
    context.length = this.#end - context.start
  }
}
