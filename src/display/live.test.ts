import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { progress } from './bars'
import { liveRun, statusLine } from './live'
import type { MimeBundle } from './mime'
import { drawProgress } from './progress'
import { stepRecord, stepRecords } from './records.fixture'

const HOST = Symbol.for('arbor-nb.display-host')
const shared = globalThis as unknown as Record<symbol, unknown>
let outputs: Map<string, MimeBundle>
let calls: string[]
const host = {
  display(bundle: MimeBundle, { displayId = '' }: { displayId?: string } = {}) {
    calls.push('display')
    outputs.set(displayId, bundle)
  },
  update(bundle: MimeBundle, displayId: string) {
    if (!outputs.has(displayId)) throw new Error(`update of ${displayId} before its display`)
    calls.push('update')
    outputs.set(displayId, bundle)
  },
}
const text = (part: string) => String([...outputs].find(([id]) => id.includes(part))?.[1]['text/plain'])

beforeEach(() => {
  vi.useFakeTimers()
  outputs = new Map()
  calls = []
  shared[HOST] = host
})
afterEach(() => {
  vi.useRealTimers()
  delete shared[HOST]
})

describe('a live run', () => {
  it('replaces three outputs at most five times a second and always shows the last state', () => {
    const run = liveRun({ totalSteps: 100 })
    for (const record of stepRecords(100)) {
      run.update(record)
      vi.advanceTimersByTime(20)
    }
    run.end()
    expect(outputs.size).toBe(3)
    // 2 seconds: first, 10 at a fifth of a second, last; three outputs each.
    expect(calls.length).toBeLessThanOrEqual(3 * 12)
    expect(calls.filter((call) => call === 'display')).toHaveLength(3)
    expect(text('status')).toMatch(/^step 100\/100 · reward 0.10 → 10.00 · 21 s a step · done\n/)
    expect(text('reward')).toContain('100 steps')
  })

  it('tells what is going on between steps, and why it stopped', () => {
    const run = liveRun({ totalSteps: 3 })
    run.update(stepRecord(1))
    run.progress('rollouts 3/32')
    vi.advanceTimersByTime(300)
    expect(text('status')).toMatch(/^step 1\/3 · reward 0.10 · 21 s a step · 42 s left · rollouts 3\/32\n/)
    run.end('server gone')
    expect(text('status')).toContain('stopped: server gone')
  })

  it('shows nothing outside a notebook', () => {
    delete shared[HOST]
    const run = liveRun()
    run.update(stepRecord(1))
    run.end()
    expect(calls).toEqual([])
  })

  it('estimates the time left from the median step, so that a validation does not change it', () => {
    const records = [stepRecord(1), stepRecord(2, { seconds_between: 300 }), stepRecord(3)]
    const line = statusLine(records, { totalSteps: 13, activity: '', ended: undefined, validation: [{ step: 2, score: 41.04 }] })
    expect(line).toBe('step 3/13 · reward 0.10 → 0.30 · validation 41.0 % · 21 s a step · 4 min left')
  })
})

describe('progress events', () => {
  const grpo = (phase: string, payload: unknown, done = 0) =>
    drawProgress({ kind: `grpo:${phase}`, id: 'job', title: 'GRPO', done, total: 2, payload })

  it('become live charts for a training run, with evaluations inside it in the status', () => {
    grpo('start', { model: 'm', notes: [] })
    grpo('item', { validation: { step: 0, score: 9 } })
    grpo('item', { record: stepRecord(1) }, 1)
    drawProgress({ kind: 'evaluate:item', id: 'e', title: 'Evaluate', done: 3, total: 9 })
    vi.advanceTimersByTime(300)
    expect(text('status')).toContain('validation 9.0 %')
    expect(text('status')).toContain('Evaluate: 3/9')
    grpo('end', { status: 'failed', reason: 'metric threw' }, 1)
    expect(text('status')).toContain('stopped: metric threw')
    expect(outputs.size).toBe(3)
  })

  it('become one replaced bar for an evaluation, ending at its last state', () => {
    const evaluate = (phase: string, done: number, note?: string) =>
      drawProgress({ kind: `evaluate:${phase}`, id: 'e-1', title: 'Evaluate', done, total: 100, ...(note ? { note } : {}) })
    evaluate('start', 0)
    for (let done = 1; done <= 100; done++) evaluate('item', done)
    evaluate('end', 100, '<41.0 %>')
    expect(calls).toEqual(['display', 'update'])
    expect(text('progress')).toBe('Evaluate: 100/100 ████████████ · <41.0 %>')
    expect([...outputs.values()][0]?.['text/html']).not.toContain('<41')
  })
})

describe('a bar around a loop', () => {
  it('tells rate and time left, and shows the bars of its body below it', async () => {
    const seen: string[] = []
    for await (const epoch of progress(epochs(), { title: 'Epoch', total: 2 })) {
      for (const _ of progress([1, 2, 3, 4], { title: `Batch of ${epoch}` })) {
        vi.advanceTimersByTime(500)
        seen.push(text('progress'))
      }
    }
    expect(outputs.size).toBe(1)
    expect(seen[2]).toBe('Epoch: 0/2 ░░░░░░░░░░░░ › Batch of 0: 2/4 ██████░░░░░░ · 2.0/s · 1 s left')
    expect(seen[5]).toBe('Epoch: 1/2 ██████░░░░░░ · 2.5 s each · 3 s left › Batch of 1: 1/4 ███░░░░░░░░░ · 2.0/s · 2 s left')
    expect(text('progress')).toBe('Epoch: 2/2 ████████████ · 2.0 s each · 4 s in all')
  })

  it('ends where the loop is left early, and a loop after it has an output of its own', () => {
    for (const item of progress(new Set(['a', 'b', 'c']), { title: 'First' })) if (item === 'b') break
    for (const _ of progress(['d'], { title: 'Second' }));
    expect([...outputs.values()].map((bundle) => bundle['text/plain'])).toEqual([
      'First: 1/3 ████░░░░░░░░',
      'Second: 1/1 ████████████',
    ])
  })

  async function* epochs() {
    yield 0
    yield 1
  }
})
