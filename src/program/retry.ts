// Repeats what failed for a reason that passes: a busy service, a lost connection, a wait that was too long.

import { setTimeout as sleep } from 'node:timers/promises'

/** A failure with what it took to see it. */
export class GaveUp {
  constructor(
    readonly cause: unknown,
    readonly attempts: number,
    readonly seconds: number,
  ) {}
}

export interface RetryOptions {
  /** Repeats after the first attempt. */
  readonly retries: number
  readonly signal?: AbortSignal
  /** Whether an attempt that failed may be made again; asked besides the error's own kind. */
  readonly mayRepeat?: () => boolean
}

const PASSING_STATUS = new Set([408, 409, 429])
/** First wait, then twice as long each time. */
const FIRST_WAIT_MS = 500
const LONGEST_WAIT_MS = 8_000
/** A service that asks for a longer wait than this isn't waited for. */
const LONGEST_ASKED_WAIT_MS = 300_000

/** @throws GaveUp with the last error; the signal's reason when aborted, also while waiting */
export async function withRetries<T>(attempt: () => Promise<T>, options: RetryOptions): Promise<T> {
  const { retries, signal, mayRepeat = () => true } = options
  const start = performance.now()
  for (let made = 1; ; made++) {
    try {
      return await attempt()
    } catch (error) {
      signal?.throwIfAborted()
      const wait = waitBefore(made, error)
      if (made > retries || wait === null || !mayRepeat()) throw new GaveUp(error, made, (performance.now() - start) / 1000)
      await sleep(wait, undefined, signal ? { signal } : {}).catch(() => signal?.throwIfAborted())
    }
  }
}

interface ServiceError {
  readonly status?: number
  readonly headers?: { get?(name: string): string | null } | Readonly<Record<string, string>> | null
}

/** Milliseconds to wait before the next attempt; null for an error that would only come again. */
function waitBefore(made: number, error: unknown): number | null {
  const { status, headers } = error as ServiceError
  if (status !== undefined && !PASSING_STATUS.has(status) && status < 500) return null
  if (status === undefined && !isConnectionError(error)) return null
  const asked = askedWait(headers)
  if (asked !== null) return asked > LONGEST_ASKED_WAIT_MS ? null : asked
  const wait = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** (made - 1))
  return wait * (1 - 0.25 * Math.random()) // many callers that failed together should not come back together
}

/** The `Retry-After` of an answer, in seconds or as a date, or its `retry-after-ms`. */
function askedWait(headers: ServiceError['headers']): number | null {
  const read = (name: string) =>
    typeof headers?.get === 'function'
      ? headers.get(name)
      : ((headers as Record<string, string> | null | undefined)?.[name] ?? null)
  const [milliseconds, after] = [read('retry-after-ms'), read('retry-after')]
  if (milliseconds !== null && Number.isFinite(Number(milliseconds))) return Math.max(0, Number(milliseconds))
  if (after === null) return null
  const wait = Number.isFinite(Number(after)) ? Number(after) * 1000 : Date.parse(after) - Date.now()
  return Number.isFinite(wait) ? Math.max(0, wait) : null
}

/** No answer came: refused, reset, cut off in the middle, or too late. */
function isConnectionError(error: unknown): boolean {
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    if (/^(?:APIConnection|APIConnectionTimeout)Error$/.test(at.constructor.name)) return true
    const { code = '' } = at as { code?: unknown }
    if (/^(?:ECONN|EPIPE|ETIMEDOUT|EAI_AGAIN|UND_ERR)/.test(String(code))) return true
    if (/^(?:terminated|premature close|fetch failed)/i.test(at.message)) return true
  }
  return false
}
