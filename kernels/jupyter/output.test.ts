import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { OutputEvent } from './bridge'
import { OutputQueue } from './output'

const print = (text: string, cell = 'a'): OutputEvent => ({ kind: 'stream', cell, name: 'stdout', text })
const show = (text: string, displayId: string | null = null, update = false): OutputEvent => ({
  kind: 'display',
  cell: 'a',
  bundle: { 'text/plain': text },
  displayId,
  update,
})

let sent: OutputEvent[]
let returned: number
let queue: OutputQueue
beforeEach(() => {
  vi.useFakeTimers()
  sent = []
  returned = 0
  queue = new OutputQueue(
    (event) => sent.push(event),
    (units) => (returned += units),
  )
})
afterEach(() => vi.useRealTimers())

const texts = () =>
  sent.map((event) => (event.kind === 'stream' ? event.text : event.kind === 'display' ? event.bundle['text/plain'] : '-'))

describe('output on its way', () => {
  it('joins prints of one cell, for at most 50 ms', () => {
    for (const text of ['a', 'b', 'c']) queue.add(print(text))
    expect(sent).toEqual([])
    vi.advanceTimersByTime(50)
    expect(texts()).toEqual(['abc'])
  })

  it('keeps cells, streams and displays in their order', () => {
    queue.add(print('one'))
    queue.add(print('two', 'b'))
    queue.add(show('picture'))
    expect(texts()).toEqual(['one', 'two', 'picture'])
  })

  it('shows the newest of several updates, and the last one always', () => {
    queue.add(show('0', 'd'))
    for (let i = 1; i <= 9; i++) queue.add(show(String(i), 'd', true))
    vi.advanceTimersByTime(50)
    expect(texts()).toEqual(['0', '9'])
  })

  it('holds back what a server would drop, and loses nothing', async () => {
    const line = 'x'.repeat(64 * 1024)
    for (let i = 0; i < 40; i++) queue.add(print(line))
    const atOnce = texts().join('').length
    expect(atOnce).toBeGreaterThan(900_000)
    expect(atOnce).toBeLessThan(1_200_000)
    const flushed = queue.flush()
    await vi.advanceTimersByTimeAsync(1000)
    expect(texts().join('').length - atOnce).toBeLessThan(800_000)
    await vi.advanceTimersByTimeAsync(5000)
    await flushed
    expect(texts().join('').length).toBe(40 * line.length)
    expect(returned).toBe(40 * line.length)
  })

  it('drops a flood after an interrupt, and says so', async () => {
    queue.limit()
    for (let i = 0; i < 100; i++) queue.add(print('y'.repeat(10_000)))
    queue.unlimit('a')
    await queue.flush()
    const text = texts().join('')
    expect(text.length).toBeLessThan(70_000)
    expect(text).toContain('940000 characters of output were dropped')
    expect(returned).toBeGreaterThan(1_000_000)
  })
})
