import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { lossLine } from './live-loss'
import type { MimeBundle } from './mime'
import { drawProgress } from './progress'

const HOST = Symbol.for('arbor-nb.display-host')
const shared = globalThis as unknown as Record<symbol, unknown>
const step = (at: number, loss: number) => ({ step: at, steps: 4, loss, seconds: 10 })

describe('lossLine', () => {
  it('tells how far, how good and how long', () => {
    const running = { title: 'Fine-tuning self', activity: '', ended: undefined }
    expect(lossLine([], running)).toBe('Fine-tuning self')
    expect(lossLine([step(1, 2.1)], running)).toBe('Fine-tuning self: update 1/4 · loss 2.1000 · 30 s left')
    expect(lossLine([step(1, 2.1), step(2, 1.5)], running)).toBe(
      'Fine-tuning self: update 2/4 · loss 2.1000 → 1.5000 · 20 s left',
    )
    expect(lossLine([step(4, 1)], { ...running, ended: null })).toContain('done')
    expect(lossLine([step(2, 1)], { ...running, ended: 'out of memory' })).toContain('stopped: out of memory')
  })
})

describe('a fine-tuning job while it trains', () => {
  let outputs: Map<string, MimeBundle>
  beforeEach(() => {
    vi.useFakeTimers()
    outputs = new Map()
    const put = (bundle: MimeBundle, id: string) => void outputs.set(id, bundle)
    shared[HOST] = {
      display: (bundle: MimeBundle, { displayId = '' }: { displayId?: string } = {}) => put(bundle, displayId),
      update: put,
    }
  })
  afterEach(() => {
    vi.useRealTimers()
    delete shared[HOST]
  })

  it('has a status line and a loss curve, which stay with the last state', () => {
    const event = (phase: string, payload: object) =>
      drawProgress({ kind: `finetune:${phase}`, id: 'finetune-1', title: 'Fine-tuning self', done: 0, total: 4, payload })
    event('start', { activity: '12 conversations' })
    for (const [i, loss] of [2, 1.5, 1.2, 1].entries()) event('item', { step: step(i + 1, loss) })
    event('end', { status: 'succeeded', reason: null })
    const texts = [...outputs].map(([id, bundle]) => [id.split('-').at(-1), bundle['text/plain']])
    expect(texts).toEqual([
      ['status', 'Fine-tuning self: update 4/4 · loss 2.0000 → 1.0000 · done'],
      ['curve', 'Fine-tuning self: loss: 1.0000 after 4 steps'],
    ])
  })
})
