// Counts what a stretch of work costs: language model calls, tokens, seconds.

import { context, currentSettings, type HistoryEntry } from '../program'

/** What something has cost so far: the calls of the program, of its teacher and of a proposer together. */
export interface Spending {
  /** Calls that a model answered; answers from the cache cost nothing. */
  readonly lmCalls: number
  readonly promptTokens: number
  readonly completionTokens: number
  /** Wall clock. */
  readonly seconds: number
}

export class SpendingMeter {
  readonly #started = performance.now()
  #lmCalls = 0
  #promptTokens = 0
  #completionTokens = 0

  /** Runs `run`; every model call in it counts, here and with whoever counts around it. */
  async count<T>(run: () => Promise<T>): Promise<T> {
    const { lmObservers } = currentSettings()
    return context({ lmObservers: [...lmObservers, (call: HistoryEntry) => this.#add(call)] }, run)
  }

  get spent(): Spending {
    return {
      lmCalls: this.#lmCalls,
      promptTokens: this.#promptTokens,
      completionTokens: this.#completionTokens,
      seconds: (performance.now() - this.#started) / 1000,
    }
  }

  #add({ usage, cacheHit }: HistoryEntry): void {
    if (cacheHit) return
    this.#lmCalls++
    this.#promptTokens += usage.promptTokens
    this.#completionTokens += usage.completionTokens
  }
}
