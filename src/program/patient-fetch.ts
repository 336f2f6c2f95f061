// `fetch` without a limit of its own. Node's gives up when an answer begins later than five minutes after the question, or when five minutes lie
// between two pieces of it; a server that loads a model, trains before it samples, or saves a large one takes longer. Who calls sets limits by a signal.

import { Agent, type ClientRequest, type IncomingMessage, request as open } from 'node:http'
import { request as openSafely, Agent as SafeAgent } from 'node:https'
import { Readable } from 'node:stream'

// On this machine a connection costs next to nothing, and one that idles may be closed by the server at the very moment of the next request.
const agent = new Agent({ keepAlive: false })
const safeAgent = new SafeAgent({ keepAlive: true })

/** As `fetch`, but for redirects, which no API server sends. */
export async function patientFetch(input: string | URL | Request, init?: RequestInit): Promise<Response> {
  const asked = new Request(input, init)
  const body = asked.body === null ? null : Buffer.from(await asked.arrayBuffer())
  asked.signal.throwIfAborted()
  const answer = await answerOf(asked, body)
  const { statusCode: status = 0, statusMessage: statusText } = answer
  const empty = asked.method === 'HEAD' || status === 204 || status === 205 || status === 304
  if (empty) answer.resume()
  return new Response(empty ? null : (Readable.toWeb(answer) as ReadableStream), {
    status,
    statusText,
    headers: headersOf(answer),
  })
}

function answerOf(asked: Request, body: Buffer | null): Promise<IncomingMessage> {
  const { method, signal } = asked
  const headers: Record<string, string | number> = {}
  asked.headers.forEach((value, name) => void (headers[name] = value))
  if (body !== null) headers['content-length'] = body.byteLength
  return new Promise((resolve, reject) => {
    const url = new URL(asked.url)
    const options = { method, headers, signal }
    const sent: ClientRequest =
      url.protocol === 'https:' ? openSafely(url, { ...options, agent: safeAgent }) : open(url, { ...options, agent })
    sent.once('response', resolve)
    sent.once('error', (error) => reject(signal.aborted ? (signal.reason as Error) : error))
    sent.end(body ?? undefined)
  })
}

function headersOf(answer: IncomingMessage): Headers {
  const headers = new Headers()
  for (let i = 0; i < answer.rawHeaders.length; i += 2) headers.append(answer.rawHeaders[i]!, answer.rawHeaders[i + 1]!)
  return headers
}
