import { describe, expect, it } from 'vitest'
import { CaptureCache } from './capture-cache'
import type { Backend } from './ops/ops'

function setup() {
  const done: string[] = []
  const backend = {
    capture: (run: () => void) => {
      run()
      done.push('recorded')
      return { replay: () => void done.push('replayed'), free: () => void done.push('freed') }
    },
  } as unknown as Backend
  const cache = new CaptureCache(backend)
  const weights = [{}]
  const meet = (sizes: string, options: { recordedAt?: number; weights?: readonly object[] } = {}) =>
    cache.run({ sizes, weights, ...options }, () => void done.push('enqueued'))
  return { done, meet, cache }
}

describe('CaptureCache', () => {
  it('records a shape at its second meeting, or later where that is asked for', () => {
    const { done, meet } = setup()
    for (let i = 0; i < 3; i++) meet('decode')
    expect(done.splice(0)).toEqual(['enqueued', 'enqueued', 'recorded', 'replayed', 'replayed'])
    for (let i = 0; i < 5; i++) meet('prompts', { recordedAt: 4 })
    expect(done).toEqual(['enqueued', 'enqueued', 'enqueued', 'enqueued', 'recorded', 'replayed', 'replayed'])
  })

  it('begins anew under other weights, and when what passes work on moves', () => {
    const { done, meet, cache } = setup()
    for (let i = 0; i < 2; i++) meet('decode')
    meet('decode', { weights: [{}] })
    expect(done.splice(0)).toEqual(['enqueued', 'enqueued', 'recorded', 'replayed', 'freed', 'enqueued'])
    for (let i = 0; i < 2; i++) meet('other')
    cache.clear()
    meet('other')
    expect(done).toEqual(['enqueued', 'enqueued', 'recorded', 'replayed', 'freed', 'enqueued'])
    expect(cache.counters).toEqual({ recorded: 2, replayed: 2 })
  })
})
