// `fetch` without a limit of its own. Node's gives up when an answer begins later than five minutes after the question, or when five minutes lie
// between two pieces of it; a server that loads a model, trains before it samples, or saves a large one takes longer. Who calls sets limits by a signal.

import { Agent, type ClientRequest, type IncomingMessage, request as open } from 'node:http'
import { request as openSafely, Agent as SafeAgent } from 'node:https'
import { Readable } from 'node:stream'

// On this machine a connection costs next to nothing, and one that idles may be closed by the server at the very moment of the next request.
const agent = new Agent({ keepAlive: false })
const safeAgent = new SafeAgent({ keepAlive: true })

/** Bytes up to which an answer of known length is read before it is handed on: a web stream costs more than all the rest of a request. */
const READ_WHOLE = 1 << 20

/** What is sent. */
interface Asked {
  readonly url: string
  readonly method: string
  readonly headers: Headers
  readonly body: Buffer | null
  readonly signal: AbortSignal | undefined
}

/** As `fetch`, but for redirects, which no API server sends. */
export async function patientFetch(input: string | URL | Request, init?: RequestInit): Promise<Response> {
  const asked = plainly(input, init) ?? (await byRequest(new Request(input, init)))
  asked.signal?.throwIfAborted()
  const answer = await answerOf(asked)
  const { statusCode: status = 0, statusMessage: statusText } = answer
  const about = { status, statusText, headers: headersOf(answer) }
  const empty = asked.method === 'HEAD' || status === 204 || status === 205 || status === 304
  if (empty) answer.resume()
  if (empty) return new Response(null, about)
  if (Number(answer.headers['content-length'] ?? Number.NaN) <= READ_WHOLE)
    return new Response(await wholeOf(answer, asked), about)
  return new Response(Readable.toWeb(answer) as ReadableStream, about)
}

/** A text for an address, without a Request made of it; null for all else. */
function plainly(input: string | URL | Request, { method = 'GET', headers, body, signal }: RequestInit = {}): Asked | null {
  if (input instanceof Request || typeof body !== 'string') return null
  const own = new Headers(headers)
  if (!own.has('content-type')) own.set('content-type', 'text/plain;charset=UTF-8')
  return { url: String(input), method: method.toUpperCase(), headers: own, body: Buffer.from(body), signal: signal ?? undefined }
}

async function byRequest(request: Request): Promise<Asked> {
  const body = request.body === null ? null : Buffer.from(await request.arrayBuffer())
  const { url, method, headers, signal } = request
  return { url, method, headers, body, signal }
}

function answerOf(asked: Asked): Promise<IncomingMessage> {
  const { method, signal, body } = asked
  const headers: Record<string, string | number> = {}
  asked.headers.forEach((value, name) => void (headers[name] = value))
  if (body !== null) headers['content-length'] = body.byteLength
  return new Promise((resolve, reject) => {
    const url = new URL(asked.url)
    const options = { method, headers, ...(signal && { signal }) }
    const sent: ClientRequest =
      url.protocol === 'https:' ? openSafely(url, { ...options, agent: safeAgent }) : open(url, { ...options, agent })
    sent.once('response', resolve)
    sent.once('error', (error) => reject(signal?.aborted ? (signal.reason as Error) : error))
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
