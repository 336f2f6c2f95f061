import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { APIConnectionError, APIConnectionTimeoutError } from 'openai'
import { afterEach, describe, expect, it } from 'vitest'
import { askOwnServer } from './own-server'

const closing: (() => void)[] = []
afterEach(() => {
  for (const close of closing.splice(0)) close()
})

/** A server that answers so, as `askOwnServer` is told of it. */
async function serve(answer: (request: IncomingMessage, response: ServerResponse) => void, timeoutMs = 5000) {
  const server = createServer(answer)
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  closing.push(() => {
    server.close()
    server.closeAllConnections()
  })
  return { apiBase: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/`, apiKey: 'secret', timeoutMs }
}

const COMPLETION = { id: 'a', choices: [], usage: null }

describe('a completion of our own server', () => {
  it('is asked for with key and moment, and comes whole', async () => {
    let asked: IncomingMessage | null = null
    const server = await serve((request, response) => {
      asked = request
      response.end(JSON.stringify(COMPLETION))
    })
    expect(await askOwnServer(server, { model: 'm' }, { together: 'b/2' })).toEqual(COMPLETION)
    const { url, headers } = asked!
    expect([url, headers.authorization, headers['x-arbor-together']]).toEqual(['/v1/chat/completions', 'Bearer secret', 'b/2'])
  })

  it('fails with status, code and headers, whatever the body is', async () => {
    const bodies = ['{"error":{"message":"too long","code":"context_length_exceeded"}}', 'not JSON', '{}']
    const server = await serve((_, response) => {
      response.writeHead(429, { 'retry-after': '3' }).end(bodies.shift())
    })
    const failure = () =>
      askOwnServer(server, {}).catch(({ message, status, code, headers }) => [message, status, code, headers['retry-after']])
    expect(await failure()).toEqual(['429 too long', 429, 'context_length_exceeded', '3'])
    expect(await failure()).toEqual(['429 not JSON', 429, null, '3'])
    expect(await failure()).toEqual(['429 {}', 429, null, '3'])
  })

  it('that nobody gives is a lost connection, one that takes too long a timeout, as of the openai package', async () => {
    const { apiBase } = await serve(() => {})
    const nobody = { apiBase: 'http://127.0.0.1:9/v1', apiKey: '', timeoutMs: 5000 }
    await expect(askOwnServer(nobody, {})).rejects.toBeInstanceOf(APIConnectionError)
    await expect(askOwnServer({ apiBase, apiKey: '', timeoutMs: 50 }, {})).rejects.toBeInstanceOf(APIConnectionTimeoutError)
  })

  it('ends with its signal, which hundreds may share without a warning', async () => {
    const warnings: Error[] = []
    const warn = (warning: Error) => void warnings.push(warning)
    process.on('warning', warn)
    closing.push(() => process.off('warning', warn))
    let arrived = 0
    const stop = new AbortController()
    const server = await serve(() => {
      if (++arrived === 40) stop.abort(new Error('enough'))
    })
    const calls = Array.from({ length: 40 }, () => askOwnServer(server, {}, { signal: stop.signal }))
    for (const { reason } of (await Promise.allSettled(calls)) as PromiseRejectedResult[]) expect(reason.message).toBe('enough')
    await expect(askOwnServer(server, {}, { signal: stop.signal })).rejects.toThrow('enough')
    await new Promise((turn) => setImmediate(turn)) // warnings are emitted a turn later
    expect([arrived, warnings]).toEqual([40, []])
  })
})
