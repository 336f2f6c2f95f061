import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { MimeBundle } from './mime'
import { drawProgress } from './progress'
import { stepRecord } from './records.fixture'
import { together } from './together'

let outputs: Map<string, MimeBundle>
let updates: number
const host = {
  display(bundle: MimeBundle, { displayId = '' }: { displayId?: string } = {}) {
    outputs.set(displayId, bundle)
  },
  update(bundle: MimeBundle, displayId: string) {
    if (!outputs.has(displayId)) throw new Error(`update of ${displayId} before its display`)
    updates++
    outputs.set(displayId, bundle)
  },
}
const text = (part: string) => String([...outputs].find(([id]) => id.endsWith(part))?.[1]['text/plain'])
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** A training of `steps` steps with these rewards, 100 ms each. */
async function training(id: string, rewards: readonly number[]): Promise<string> {
  const event = { id, title: 'GRPO', total: rewards.length }
  drawProgress({ ...event, kind: 'grpo:start', done: 0, payload: { notes: [`notes of ${id}`] } })
  for (const [i, reward] of rewards.entries()) {
    await pause(100)
    drawProgress({ ...event, kind: 'grpo:item', done: i + 1, payload: { record: stepRecord(i + 1, { reward }) } })
  }
  drawProgress({ ...event, kind: 'grpo:end', done: rewards.length, payload: { status: 'succeeded' } })
  return `program of ${id}`
}

async function finish<T>(running: Promise<T>): Promise<T> {
  await vi.advanceTimersByTimeAsync(5000)
  return running
}

beforeEach(() => {
  vi.useFakeTimers()
  outputs = new Map()
  updates = 0
})
afterEach(() => vi.useRealTimers())

describe('together', () => {
  it('runs all at once, answers by name, and draws one chart and one status in place of theirs', async () => {
    const slow = () => training('job-1', [0.1, 0.1, 0.1])
    const fast = () => training('job-2', [0.2, 0.4, 0.6])
    const programs = await finish(together({ slow, fast }, { host, smooth: 1 }))
    expect(programs).toEqual({ slow: 'program of job-1', fast: 'program of job-2' })
    expect([...outputs.keys()].map((id) => id.split('-').at(-1))).toEqual(['status', 'chart'])
    expect(text('status')).toBe('slow: 3 steps, done · fast: 3 steps, done')
    expect(text('chart')).toBe('Mean reward: slow 0.1 → 0.1, fast 0.2 → 0.6')
  })

  it('tells between where each one is, other work included, at most twice a second', async () => {
    const evaluating = async () => {
      drawProgress({ kind: 'evaluate:item', id: 'e', title: 'Evaluation', done: 3, total: 9, note: 'average 33 %' })
      await pause(4000)
      return 'evaluated'
    }
    const running = together({ long: () => training('job-3', Array(30).fill(-0.5)), evaluating }, { host })
    await vi.advanceTimersByTimeAsync(1000)
    expect(text('status')).toMatch(/^long: step \d+\/30, reward −0\.50 · evaluating: Evaluation: 3\/9 · average 33 %$/)
    await finish(running)
    expect(updates).toBeLessThanOrEqual(2 * 10)
  })

  it('lets the others finish when one fails, then throws its error', async () => {
    const failing = () => pause(50).then(() => Promise.reject(new Error('no such rate')))
    const running = together({ failing, whole: () => training('job-4', [0, 1]) }, { host })
    const caught = expect(running).rejects.toThrow('no such rate')
    await vi.advanceTimersByTimeAsync(5000)
    await caught
    expect(text('status')).toBe('failing: failed · whole: 2 steps, done')
  })
})
