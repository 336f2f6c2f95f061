// Server-sent events: a response that an async source writes into until it ends or the reader goes away.

/** Writes one event; `data` may not hold line breaks (JSON never does). */
export type SendEvent = (data: string, fields?: { event?: string; id?: string }) => void

const KEEP_ALIVE_MS = 15_000

/**
 * Runs `source` with a `send` function; the stream closes when it resolves. `signal` aborts when the reader goes away.
 * An error that `source` throws before the end becomes `failed(error)`, sent as the last data.
 */
export function eventStream(
  source: (send: SendEvent, signal: AbortSignal) => Promise<void>,
  options: { signal: AbortSignal; failed: (error: unknown) => string },
): Response {
  const gone = new AbortController()
  const abort = () => gone.abort()
  options.signal.addEventListener('abort', abort, { once: true })
  if (options.signal.aborted) abort()
  const encoder = new TextEncoder()
  const body = new ReadableStream<Uint8Array>({
    async start(controller) {
      const write = (text: string) => {
        if (!gone.signal.aborted) controller.enqueue(encoder.encode(text))
      }
      const alive = setInterval(() => write(': waiting\n\n'), KEEP_ALIVE_MS)
      const send: SendEvent = (data, fields = {}) => {
        const head = Object.entries(fields).map(([name, value]) => `${name}: ${value}\n`)
        write(`${head.join('')}data: ${data}\n\n`)
      }
      try {
        await source(send, gone.signal)
      } catch (error) {
        send(options.failed(error))
      } finally {
        clearInterval(alive)
        options.signal.removeEventListener('abort', abort)
        if (!gone.signal.aborted) controller.close()
      }
    },
    cancel: abort,
  })
  return new Response(body, { headers: { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache' } })
}
