import { describe, expect, it, vi } from 'vitest'
import { GaveUp, withRetries } from './retry'

const status = (code: number, headers: Record<string, string> = {}) =>
  Object.assign(new Error(`status ${code}`), { status: code, headers })
const now = { 'retry-after-ms': '0' }

/** Fails with the given errors in turn, then answers how often it was asked. */
function failing(...errors: unknown[]) {
  let made = 0
  return async () => {
    const error = errors[made++]
    if (error) throw error
    return made
  }
}

describe('withRetries', () => {
  it.each([408, 409, 429, 500, 503])('asks again after status %i', async (code) => {
    expect(await withRetries(failing(status(code, now)), { retries: 1 })).toBe(2)
  })

  it.each([
    ['a reset', Object.assign(new Error('x'), { code: 'ECONNRESET' })],
    [
      'a connection refused below',
      new Error('Connection error.', { cause: Object.assign(new Error('x'), { code: 'ECONNREFUSED' }) }),
    ],
    ['a stream cut off', new TypeError('terminated')],
  ])('asks again after %s', async (_, error) => {
    const random = vi.spyOn(Math, 'random').mockReturnValue(1)
    expect(await withRetries(failing(error), { retries: 1 })).toBe(2)
    random.mockRestore()
  })

  it.each([400, 401, 404, 422])('does not repeat what would fail again: status %i', async (code) => {
    await expect(withRetries(failing(status(code)), { retries: 3 })).rejects.toMatchObject({
      attempts: 1,
      cause: { status: code },
    })
    await expect(withRetries(failing(new Error('a bug')), { retries: 3 })).rejects.toBeInstanceOf(GaveUp)
  })

  it('gives up after so many repeats, and says how many', async () => {
    const errors = [1, 2, 3].map(() => status(500, now))
    await expect(withRetries(failing(...errors), { retries: 2 })).rejects.toMatchObject({ attempts: 3 })
    await expect(withRetries(failing(...errors), { retries: 2, mayRepeat: () => false })).rejects.toMatchObject({ attempts: 1 })
  })

  it('waits as long as the service says, in seconds or until a date', async () => {
    const start = performance.now()
    await withRetries(failing(status(429, { 'retry-after': '0.15' })), { retries: 1 })
    expect(performance.now() - start).toBeGreaterThan(140)
    const until = new Date(Date.now() - 5000).toUTCString()
    await withRetries(failing(status(429, { 'retry-after': until })), { retries: 1 })
    expect(performance.now() - start).toBeLessThan(5000)
    await expect(withRetries(failing(status(429, { 'retry-after': '3600' })), { retries: 1 })).rejects.toMatchObject({
      attempts: 1,
    })
  })

  it('ends with the reason of an abort, also while it waits', async () => {
    const stop = new AbortController()
    setTimeout(() => stop.abort(new Error('enough')), 20)
    const waiting = withRetries(failing(status(503, { 'retry-after': '60' })), { retries: 1, signal: stop.signal })
    await expect(waiting).rejects.toThrow('enough')
  })
})
