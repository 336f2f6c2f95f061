// `fetch` without a limit of its own. Node's gives up when an answer begins later than five minutes after the question, or when five minutes lie
// between two pieces of it; a server that loads a model, trains before it samples, or saves a large one takes longer. Who calls sets limits by a signal.

import { Agent, type ClientRequest, type IncomingMessage, request as open } from 'node:http'
import { request as openSafely, Agent as SafeAgent } from 'node:https'
import { Readable } from 'node:stream'

/** Less than servers let a connection idle (Node's five seconds), so that it isn't closed under a request that is being sent. */
const IDLE_MS = 2000
const agent = new Agent({ keepAlive: true, timeout: IDLE_MS })
const safeAgent = new SafeAgent({ keepAlive: true, timeout: IDLE_MS })

/** How an end by the other side shows. */
const CLOSED: ReadonlySet<string> = new Set(['ECONNRESET', 'EPIPE'])

/** Bytes up to which an answer of known length is read before it is handed on: a web stream costs more than all the rest of a request. */
const READ_WHOLE = 1 << 20

/** What is sent. */
interface Asked {
  readonly url: string
  readonly method: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: Buffer | null
  readonly signal: AbortSignal | undefined
}

/** As `fetch`, but for redirects, which no API server sends. */
export async function patientFetch(input: string | URL | Request, init?: RequestInit): Promise<Response> {
  const asked = plainly(input, init) ?? (await byRequest(new Request(input, init)))
  asked.signal?.throwIfAborted()
  const answer = await answerOf(asked, { fresh: false })
  const { statusCode: status = 0, statusMessage: statusText } = answer
  const about = { status, statusText, headers: headersOf(answer) }
  const empty = asked.method === 'HEAD' || status === 204 || status === 205 || status === 304
  if (empty) answer.resume()
  if (empty) return new Response(null, about)
  if (Number(answer.headers['content-length'] ?? Number.NaN) <= READ_WHOLE)
    return new Response(await wholeOf(answer, asked), about)
  return new Response(Readable.toWeb(answer) as ReadableStream, about)
}

/** An answer that was read whole. */
export interface WholeAnswer {
  readonly status: number
  /** By their names in small letters. */
  readonly headers: IncomingMessage['headers']
  readonly text: string
}

/** Sends a text and reads the whole answer, without the objects of `fetch`, which cost more than the rest. */
export async function patientPost(
  url: string,
  { headers, body, signal }: { headers: Record<string, string>; body: string; signal?: AbortSignal },
): Promise<WholeAnswer> {
  signal?.throwIfAborted()
  const asked = { url, method: 'POST', headers, body: Buffer.from(body), signal }
  const answer = await answerOf(asked, { fresh: false })
  const bytes = Buffer.from(await wholeOf(answer, asked))
  return { status: answer.statusCode ?? 0, headers: answer.headers, text: bytes.toString('utf8') }
}

/** A text for an address, without a Request made of it; null for all else. */
function plainly(input: string | URL | Request, { method = 'GET', headers, body, signal }: RequestInit = {}): Asked | null {
  if (input instanceof Request || typeof body !== 'string') return null
  const own = new Headers(headers)
  if (!own.has('content-type')) own.set('content-type', 'text/plain;charset=UTF-8')
  return {
    url: String(input),
    method: method.toUpperCase(),
    headers: recordOf(own),
    body: Buffer.from(body),
    signal: signal ?? undefined,
  }
}

async function byRequest(request: Request): Promise<Asked> {
  const body = request.body === null ? null : Buffer.from(await request.arrayBuffer())
  const { url, method, headers, signal } = request
  return { url, method, headers: recordOf(headers), body, signal }
}

function recordOf(headers: Headers): Record<string, string> {
  const record: Record<string, string> = {}
  headers.forEach((value, name) => void (record[name] = value))
  return record
}

/**
 * A connection that idled may have been closed unheard, by a server that went or while our own thread was busy. A request that finds it closed is
 * sent once more over a `fresh` one, as browsers do.
 */
function answerOf(asked: Asked, { fresh }: { fresh: boolean }): Promise<IncomingMessage> {
  const { method, signal, body } = asked
  const headers = { ...asked.headers, ...(body === null ? {} : { 'content-length': body.byteLength }) }
  return new Promise((resolve, reject) => {
    const url = new URL(asked.url)
    const options = { method, headers, ...(signal && { signal }) }
    const sent: ClientRequest =
      url.protocol === 'https:'
        ? openSafely(url, { ...options, agent: !fresh && safeAgent })
        : open(url, { ...options, agent: !fresh && agent })
    sent.once('response', resolve)
    sent.once('error', (error: NodeJS.ErrnoException) => {
      if (signal?.aborted) reject(signal.reason as Error)
      else if (sent.reusedSocket && CLOSED.has(error.code ?? '')) resolve(answerOf(asked, { fresh: true }))
      else reject(error)
    })
    sent.end(body ?? undefined)
  })
}

function wholeOf(answer: IncomingMessage, { signal }: Asked): Promise<Uint8Array<ArrayBuffer>> {
  return new Promise((resolve, reject) => {
    const pieces: Buffer[] = []
    answer.on('data', (piece: Buffer) => pieces.push(piece))
    answer.once('end', () => resolve(Buffer.concat(pieces)))
    answer.once('error', (error) => reject(signal?.aborted ? (signal.reason as Error) : error))
  })
}

function headersOf(answer: IncomingMessage): Headers {
  const headers = new Headers()
  for (let i = 0; i < answer.rawHeaders.length; i += 2) headers.append(answer.rawHeaders[i]!, answer.rawHeaders[i + 1]!)
  return headers
}
