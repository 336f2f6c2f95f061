// What calls cost, per language model.

import type { HistoryEntry, LMUsage } from './base-lm'
import { context, currentSettings } from './context'
import { Prediction } from './example'

/** Tokens by the model's name. */
export type UsageByModel = Readonly<Record<string, LMUsage>>

/** Adds up the tokens of calls; answers from the cache cost none. */
export class UsageTracker {
  readonly #byModel = new Map<string, LMUsage>()

  readonly add = ({ model, usage, cacheHit }: HistoryEntry): void => {
    if (cacheHit) return
    const before = this.#byModel.get(model)
    this.#byModel.set(model, {
      promptTokens: (before?.promptTokens ?? 0) + usage.promptTokens,
      completionTokens: (before?.completionTokens ?? 0) + usage.completionTokens,
      totalTokens: (before?.totalTokens ?? 0) + usage.totalTokens,
    })
  }

  total(): UsageByModel {
    return Object.fromEntries(this.#byModel)
  }
}

/**
 * Runs `run` and answers its result with the tokens that its calls took. One inside another counts for both.
 * @example const { result, usage } = await dspy.trackUsage(() => program.call({ question }))
 */
export async function trackUsage<T>(run: () => T | Promise<T>): Promise<{ result: T; usage: UsageByModel }> {
  const tracker = new UsageTracker()
  const lmObservers = [...currentSettings().lmObservers, tracker.add]
  const result = await context({ lmObservers }, run)
  return { result, usage: tracker.total() }
}

/** A program's prediction with what it took; the programs inside count towards it and keep no account of their own. */
export async function withUsage<T>(run: () => Promise<T>): Promise<T> {
  const { result, usage } = await context({ trackUsage: false }, () => trackUsage(run))
  if (result instanceof Prediction) result.setLmUsage(usage)
  return result
}
