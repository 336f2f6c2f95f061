// The minibatches GEPA reflects on: the examples shuffled anew each epoch, filled up to whole batches with the rarest ones.
// Follows EpochShuffledBatchSampler of gepa/strategies/batch_sampler.py.

import type { PythonRandom } from '../program'

export class EpochBatches {
  #order: number[] = []
  #epoch = -1

  constructor(
    readonly size: number,
    readonly batch: number,
    readonly random: PythonRandom,
  ) {}

  /** Indices of the examples of iteration `iteration` (from 0). Iterations may be left out, not repeated. */
  at(iteration: number): number[] {
    const start = iteration * this.batch
    const epoch = this.#epoch === -1 ? 0 : Math.floor(start / this.#order.length)
    if (epoch > this.#epoch) {
      this.#epoch = epoch
      this.#order = this.#shuffled()
    }
    const from = start % this.#order.length
    return this.#order.slice(from, from + this.batch)
  }

  #shuffled(): number[] {
    const order = Array.from({ length: this.size }, (_, i) => i)
    this.random.shuffle(order)
    const counts = new Map(order.map((id) => [id, 1]))
    while (order.length % this.batch !== 0) {
      const least = Math.min(...counts.values())
      const rarest = [...counts.keys()].filter((id) => counts.get(id) === least).at(-1)! // of equals the last of the shuffle
      counts.set(rarest, least + 1)
      order.push(rarest)
    }
    return order
  }
}
