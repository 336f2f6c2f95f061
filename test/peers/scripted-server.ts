// An OpenAI-compatible server that answers from a function and keeps what it was asked, byte for byte.

import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Message } from '../../src/protocol'

/** What of a request's body a language model goes by; absent options are absent. */
export interface Asked {
  readonly messages: readonly Message[]
  readonly temperature?: number
  readonly n?: number
  readonly seed?: number
  readonly max_tokens?: number
  readonly response_format?: object
}

export interface ScriptedServer {
  readonly baseUrl: string
  /** The requests since the last `take`. */
  take(): Asked[]
  close(): Promise<void>
}

/** @param reply the completion for a request, one for each choice */
export async function scriptedServer(reply: (messages: readonly Message[], choice: number) => string): Promise<ScriptedServer> {
  let asked: Asked[] = []
  const server: Server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const body = JSON.parse(Buffer.concat(chunks).toString('utf8')) as Asked
      const { messages, temperature, n, seed, max_tokens, response_format } = body
      asked.push({ messages, temperature, n, seed, max_tokens, response_format })
      const choice = (index: number) => ({
        index,
        finish_reason: 'stop',
        message: { role: 'assistant', content: reply(messages, index) },
      })
      response.setHeader('content-type', 'application/json')
      response.end(
        JSON.stringify({
          id: `chatcmpl-${asked.length}`,
          object: 'chat.completion',
          created: 1,
          model: 'stub',
          choices: Array.from({ length: n ?? 1 }, (_, index) => choice(index)),
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
