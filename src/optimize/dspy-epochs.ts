// Which examples a step of DSPy's GRPO works on: shuffled epochs, padded with the examples that were used least.

import type { PythonRandom } from '../program'

export class DspyEpochs {
  /** Of the current epoch. */
  ids: number[] = []
  epoch = -1
  /** How often each example was used, in the order of first use. */
  readonly #uses = new Map<number, number>()

  constructor(
    readonly batch: number,
    readonly random: PythonRandom,
  ) {}

  /** The indices of step `step` (from 0) out of `size` examples; a new epoch begins where the last one ends. */
  select(size: number, step: number): number[] {
    const first = step * this.batch
    const epoch = this.epoch === -1 ? 0 : Math.floor(first / this.ids.length)
    if (epoch > this.epoch) {
      this.epoch = epoch
      this.#shuffle(size)
    }
    const at = first % this.ids.length
    return this.ids.slice(at, at + this.batch)
  }

  /** A trainset that is a whole number of steps is padded by one more, as in DSPy. */
  #shuffle(size: number): void {
    this.ids = Array.from({ length: size }, (_, i) => i)
    this.random.shuffle(this.ids)
    for (const id of this.ids) this.#use(id)
    for (let missing = this.batch - (size % this.batch); missing > 0; missing--) {
      const id = this.#leastUsed()
      this.ids.push(id)
      this.#use(id)
    }
  }

  #use(id: number): void {
    this.#uses.set(id, (this.#uses.get(id) ?? 0) + 1)
  }

  /** Of several the one that was first used last. */
  #leastUsed(): number {
    let least: [id: number, uses: number] | null = null
    for (const entry of this.#uses) if (least === null || entry[1] <= least[1]) least = entry
    return least![0]
  }
}
