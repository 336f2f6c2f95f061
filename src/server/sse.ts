// Server-sent events: a response that an async source writes into until it ends or the reader goes away.

/** Writes one event; `data` may not hold line breaks (JSON never does). */
export type SendEvent = (data: string, fields?: { event?: string; id?: string }) => void

/** How far the one who reads has come. What is sent is kept until it is read, so a source with much to say asks first. */
export interface Reader {
  /** Much of what was sent has not been read yet. */
  readonly behind: boolean
  /** Resolves when what was sent is read, or when the reader goes away. */
  caughtUp(): Promise<void>
}

type EventSource = (send: SendEvent, signal: AbortSignal, reader: Reader) => Promise<void>

const KEEP_ALIVE_MS = 15_000
/** A reader that is this much behind is slow. */
const UNREAD_BYTES = 64 * 1024

/**
 * Runs `source` with a `send` function; the stream closes when it resolves. `signal` aborts when the reader goes away.
 * An error that `source` throws before the end becomes `failed(error)`, sent as the last data.
 */
export function eventStream(source: EventSource, options: { signal: AbortSignal; failed: (error: unknown) => string }): Response {
  const gone = new AbortController()
  const waiting = new Set<() => void>()
  const wake = () => {
    for (const resume of waiting) resume()
    waiting.clear()
  }
  const abort = () => {
    gone.abort()
    wake()
  }
  options.signal.addEventListener('abort', abort, { once: true })
  if (options.signal.aborted) abort()
  const ended = () => options.signal.removeEventListener('abort', abort)
  const body = new ReadableStream<Uint8Array>(
    {
      // The source runs beside the stream: only a stream that has started tells that it was read.
      start: (controller) => void writeEvents(controller, { source, gone: gone.signal, waiting, ...options }).finally(ended),
      pull: wake,
      cancel: abort,
    },
    new ByteLengthQueuingStrategy({ highWaterMark: UNREAD_BYTES }),
  )
  return new Response(body, { headers: { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache' } })
}

interface Writing {
  readonly source: EventSource
  readonly gone: AbortSignal
  /** Whom the next read wakes. */
  readonly waiting: Set<() => void>
  readonly failed: (error: unknown) => string
}

async function writeEvents(controller: ReadableStreamDefaultController<Uint8Array>, writing: Writing): Promise<void> {
  const { source, gone, waiting, failed } = writing
  const encoder = new TextEncoder()
  const write = (text: string) => {
    if (!gone.aborted) controller.enqueue(encoder.encode(text))
  }
  const reader: Reader = {
    get behind() {
      return !gone.aborted && (controller.desiredSize ?? 0) <= 0
    },
    async caughtUp() {
      while (reader.behind) await new Promise<void>((resolve) => waiting.add(resolve))
    },
  }
  const alive = setInterval(() => !reader.behind && write(': waiting\n\n'), KEEP_ALIVE_MS)
  const send: SendEvent = (data, fields = {}) => {
    const head = Object.entries(fields).map(([name, value]) => `${name}: ${value}\n`)
    write(`${head.join('')}data: ${data}\n\n`)
  }
  try {
    await source(send, gone, reader)
  } catch (error) {
    send(failed(error))
  } finally {
    clearInterval(alive)
    if (!gone.aborted) controller.close()
  }
}
