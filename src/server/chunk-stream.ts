// What OpenAI's two streams of chunks share: how they begin and end, and how a failure on the way is told.

import { errorBody } from './http-errors'
import { eventStream, type Reader, type SendEvent } from './sse'

/** Where the chunks go. */
export interface ChunkSink {
  readonly send: SendEvent
  readonly signal: AbortSignal
  readonly reader: Reader
}

/** What `write` sends, then `[DONE]`; an error becomes the last event. */
export function chunkStream(
  write: (sink: ChunkSink) => Promise<void>,
  { signal, requestId }: { signal: AbortSignal; requestId: string },
): Response {
  return eventStream(
    async (send, aborted, reader) => {
      await write({ send, signal: aborted, reader })
      send('[DONE]')
    },
    { signal, failed: (error) => JSON.stringify(errorBody(error, requestId).body) },
  )
}
