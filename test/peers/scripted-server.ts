// An OpenAI-compatible server that answers from a function and keeps what it was asked, byte for byte.

import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Message } from '../../src/protocol'

export interface Asked {
  readonly messages: readonly Message[]
  readonly temperature?: number
  readonly n?: number
}

export interface ScriptedServer {
  readonly baseUrl: string
  /** The requests since the last `take`. */
  take(): Asked[]
  close(): Promise<void>
}

/** @param reply the completion for a request */
export async function scriptedServer(reply: (messages: readonly Message[]) => string): Promise<ScriptedServer> {
  let asked: Asked[] = []
  const server: Server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const { messages, temperature, n } = JSON.parse(Buffer.concat(chunks).toString('utf8')) as Asked
      asked.push({ messages, temperature, n })
      const message = { role: 'assistant', content: reply(messages) }
      response.setHeader('content-type', 'application/json')
      response.end(
        JSON.stringify({
          id: `chatcmpl-${asked.length}`,
          object: 'chat.completion',
          created: 1,
          model: 'stub',
          choices: [{ index: 0, finish_reason: 'stop', message }],
          usage: { prompt_tokens: 10, completion_tokens: 5, total_tokens: 15 },
        }),
      )
    })
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  return {
    baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    take() {
      const taken = asked
      asked = []
      return taken
    },
    close: () => new Promise((done, fail) => server.close((error) => (error ? fail(error) : done()))),
  }
}
