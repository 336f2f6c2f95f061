// Who waits and who runs, and what each holds of the KV cache. When slots run short, whoever came last gives way and waits again: its
// tokens stay, their keys and values are computed anew. Nothing here knows requests or passes.

import type { KvCache } from './kv-cache'
import type { Sequence } from './sequence'

export class Roster {
  #waiting: Sequence[] = []
  readonly #running = new Set<Sequence>()

  constructor(
    readonly cache: KvCache,
    private readonly counters: { preemptions: number },
  ) {}

  /** In the order they were let in. */
  get running(): ReadonlySet<Sequence> {
    return this.#running
  }

  get waiting(): number {
    return this.#waiting.length
  }

  /** Those that run over these weights, as they are now: whoever goes through them may send some back. */
  runningOver(weightSet: string | null): Sequence[] {
    return [...this.#running].filter((sequence) => sequence.weightSet === weightSet)
  }

  /** Puts a newcomer at the end of the line. */
  wait(sequence: Sequence): void {
    this.#waiting.push(sequence)
  }

  /** Lets the first that waits for these weights run; null where there is none or the cache has no room for it. */
  admit(weightSet: string | null): Sequence | null {
    const at = this.#waiting.findIndex((one) => one.weightSet === weightSet)
    const sequence = this.#waiting[at]
    if (!sequence || !this.#fits(sequence)) return null
    if (at === 0) this.#waiting.shift()
    else this.#waiting.splice(at, 1)
    this.#running.add(sequence)
    return sequence
  }

  /** Lets a waiting sequence hold what is cached of it, if the rest fits beside one more token for each that runs. */
  #fits(sequence: Sequence): boolean {
    const { cache } = this
    sequence.node = cache.open(sequence.policy, sequence.policyVersion)
    this.descend(sequence)
    const missing = sequence.tokens.length - sequence.slots.length
    if (missing + this.#running.size > cache.available && this.#running.size > 0) {
      this.#release(sequence)
      return false
    }
    return true
  }

  /** Takes over what is cached of a sequence's next tokens. */
  descend(sequence: Sequence): void {
    const known = sequence.slots.length
    const node = this.cache.descend(sequence.node!, sequence.tokens)
    sequence.hold(node)
    if (sequence.completion.length > 0) return // it comes back after it gave way
    sequence.cachedTokens = (known === 0 ? 0 : sequence.cachedTokens) + node.depth - known
  }

  /** Sends the youngest back to wait until `count` slots are to be had; false when that was `sequence` itself. */
  makeRoom(sequence: Sequence, count: number): boolean {
    while (count > this.cache.available) {
      const youngest = [...this.#running].at(-1)!
      this.leave(youngest)
      this.#waiting.unshift(youngest)
      this.counters.preemptions++
      if (youngest === sequence) return false
    }
    return true
  }

  /** Takes a sequence from those that run and frees what it holds. One that waits leaves its line by `keepWaiting`. */
  leave(sequence: Sequence): void {
    this.#running.delete(sequence)
    this.#release(sequence)
  }

  /** Only those wait on; one walk along the line, however many leave it. */
  keepWaiting(wanted: (sequence: Sequence) => boolean): void {
    this.#waiting = this.#waiting.filter(wanted)
  }

  /** Forgets everybody, and all that is cached. */
  clear(): void {
    this.#waiting = []
    this.#running.clear()
    this.cache.clear()
  }

  /** Frees a sequence's own slots and lets go of its prefix. It can start again: its tokens stay. */
  #release(sequence: Sequence): void {
    if (!sequence.node) return
    this.cache.free(sequence.slots.own)
    this.cache.unreserve(sequence.reserve)
    this.cache.release(sequence.node)
    sequence.node = null
    sequence.slots.clear()
    sequence.prefilling = true
  }
}
