// What several engines have done, as if they were one.

import type { EngineStatus } from './engine'

/** Sums, but for the policies, which all of them hold, and the time, which is their mean: else a second would have more than one. */
export function addUp(all: readonly EngineStatus[]): EngineStatus {
  const sum = (of: (status: EngineStatus) => number) => all.reduce((total, status) => total + of(status), 0)
  const memories = all.flatMap(({ deviceMemory }) => (deviceMemory ? [deviceMemory] : []))
  const memory = (of: 'free' | 'total') => memories.reduce((total, one) => total + one[of], 0)
  return {
    running: sum(({ running }) => running),
    waiting: sum(({ waiting }) => waiting),
    cachedTokens: sum(({ cachedTokens }) => cachedTokens),
    busySeconds: sum(({ busySeconds }) => busySeconds) / all.length,
    work: {
      promptTokens: sum(({ work }) => work.promptTokens),
      sampledTokens: sum(({ work }) => work.sampledTokens),
      trainedTokens: sum(({ work }) => work.trainedTokens),
    },
    deviceMemory: memories.length === 0 ? null : { free: memory('free'), total: memory('total') },
    policies: all[0]!.policies,
    policiesAtOnce: Math.max(...all.map(({ policiesAtOnce }) => policiesAtOnce)),
  }
}
