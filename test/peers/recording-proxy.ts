// A proxy between a client and a server that passes everything on and writes it down.

import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Call } from '../golden/arbor/shape'

export interface RecordedRequest extends Call {
  readonly agent: string
  readonly authorization: string | null
}

export interface RecordingProxy {
  /** Where clients go, with the slash at the end. */
  readonly baseUrl: string
  /** In the order in which they came; each is whole once it was answered. */
  readonly calls: readonly RecordedRequest[]
  close(): void
}

/** @param target a server's base URL, .../v1/ */
export async function recordingProxy(target: string): Promise<RecordingProxy> {
  const calls: RecordedRequest[] = []
  const { origin } = new URL(target)
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const body = Buffer.concat(chunks)
    const { method = 'GET', url: path = '/', headers } = request
    const place = calls.push({} as RecordedRequest) - 1
    const answered = await fetch(`${origin}${path}`, {
      method,
      headers: { 'content-type': headers['content-type'] ?? 'application/json', connection: 'close' },
      ...(body.length > 0 ? { body } : {}),
    })
    const text = await answered.text()
    calls[place] = {
      method,
      path,
      agent: headers['user-agent'] ?? '',
      authorization: headers.authorization ?? null,
      request: parsed(body.toString('utf8')),
      status: answered.status,
      answer: parsed(text),
    }
    response.writeHead(answered.status, answered.statusText, { 'content-type': answered.headers.get('content-type') ?? '' })
    response.end(text)
  })
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  const close = () => {
    server.close()
    server.closeAllConnections()
  }
  return { baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/`, calls, close }
}

/** JSON as it is; an empty body and one of another kind (a form) as {}. */
function parsed(text: string): Record<string, unknown> {
  try {
    return JSON.parse(text) as Record<string, unknown>
  } catch {
    return {}
  }
}
