// As fetch, seen from whoever calls; that it waits longer than five minutes is in the long tests.

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { patientFetch } from './patient-fetch'

const closing: (() => void)[] = []
afterEach(() => {
  for (const close of closing.splice(0)) close()
})

async function serve(answer: (request: IncomingMessage, response: ServerResponse, body: Buffer) => void): Promise<string> {
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    answer(request, response, Buffer.concat(chunks))
  })
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  closing.push(() => {
    server.close()
    server.closeAllConnections()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
}

describe('an answer', () => {
  it('has status, text of the status, headers and body; what is sent arrives with its length', async () => {
    const url = await serve(({ method, headers }, response, body) => {
      response.writeHead(418, 'short and stout', { 'x-two': ['a', 'b'], 'content-type': 'application/json' })
      response.end(
        JSON.stringify({ method, type: headers['content-type'], length: headers['content-length'], body: String(body) }),
      )
    })
    const response = await patientFetch(url, { method: 'PUT', headers: { 'content-type': 'text/x' }, body: 'zürich' })
    expect([response.status, response.statusText, response.ok]).toEqual([418, 'short and stout', false])
    expect(response.headers.get('x-two')).toBe('a, b')
    expect(await response.json()).toEqual({ method: 'PUT', type: 'text/x', length: '7', body: 'zürich' })
  })

  it('of a form arrives as a form, and one without a body has none', async () => {
    let type = ''
    const url = await serve((request, response, body) => {
      type = request.headers['content-type'] ?? ''
      response.writeHead(body.includes('line one') ? 204 : 400).end()
    })
    const form = new FormData()
    form.set('file', new File(['line one'], 'a.jsonl'))
    const response = await patientFetch(new URL(url), { method: 'POST', body: form })
    expect([response.status, await response.text()]).toEqual([204, ''])
    expect(type).toMatch(/^multipart\/form-data; boundary=/)
  })

  it('is read as it comes', async () => {
    let finish = () => {}
    const url = await serve((_, response) => {
      response.write('first')
      finish = () => response.end('second')
    })
    const reader = (await patientFetch(url)).body!.getReader()
    expect(Buffer.from((await reader.read()).value!).toString()).toBe('first')
    finish()
    expect(Buffer.from((await reader.read()).value!).toString()).toBe('second')
    expect((await reader.read()).done).toBe(true)
  })
})

describe('a connection', () => {
  it('serves one request after the other, and a new one takes its place when it was closed unheard', async () => {
    const ports: (number | undefined)[] = []
    let dropAt = 0
    const url = await serve(({ socket }, response) => {
      ports.push(socket.remotePort)
      if (ports.length === dropAt) socket.destroy()
      else response.end('ok')
    })
    const ask = async () => (await patientFetch(url, { method: 'POST', body: 'x' })).text()
    expect([await ask(), await ask()]).toEqual(['ok', 'ok'])
    expect(ports[1]).toBe(ports[0])
    dropAt = 3
    expect(await ask()).toBe('ok')
    expect([ports[2], ports.length]).toEqual([ports[0], 4])
    expect(ports[3]).not.toBe(ports[0])
  })

  it('that was new and is closed is an error: the request may have been read', async () => {
    let asked = 0
    const url = await serve(({ socket }) => {
      asked++
      socket.destroy()
    })
    await expect(patientFetch(url, { method: 'POST', body: 'x' })).rejects.toThrow(/socket hang up|ECONNRESET/)
    expect(asked).toBe(1)
  })
})

describe('an end', () => {
  it("by a signal throws the signal's reason: before, while waiting for the answer, and while reading it", async () => {
    const url = await serve(({ url: path }, response) => path === '/begun' && response.write('…'))
    const reason = new Error('enough')
    await expect(patientFetch(url, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
    const waiting = new AbortController()
    setTimeout(() => waiting.abort(reason), 20)
    await expect(patientFetch(url, { signal: waiting.signal })).rejects.toBe(reason)
    const reading = new AbortController()
    const response = await patientFetch(`${url}begun`, { signal: reading.signal })
    setTimeout(() => reading.abort(reason), 20)
    await expect(response.text()).rejects.toThrow()
  })

  it('by a server that is not there, or that goes away in the middle, is an error', async () => {
    await expect(patientFetch('http://127.0.0.1:9/')).rejects.toThrow(/ECONNREFUSED/)
    const drops = await serve(({ socket }) => socket.destroy())
    await expect(patientFetch(drops)).rejects.toThrow(/socket hang up|ECONNRESET/)
    const cut = await serve((_, response) => {
      response.writeHead(200, { 'content-length': 10 }).write('half')
      setTimeout(() => response.destroy(), 10)
    })
    await expect(patientFetch(cut).then((response) => response.text())).rejects.toThrow()
  })
})
