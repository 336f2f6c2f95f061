// What a handler answers, as it arrives over a real socket.

import { request } from 'node:http'
import { hostname } from 'node:os'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { MODEL, TRAINER_CONFIG, testApp } from './fixture'
import { checkHost } from './incoming'
import { openSocket, type Socket } from './socket'

let socket: Socket
beforeAll(async () => {
  socket = await openSocket((await testApp()).fetch, { port: 0 })
})
afterAll(() => socket.close())

const initialize = (trainer_config: object) =>
  fetch(`${socket.baseUrl}fine_tuning/grpo/initialize`, {
    method: 'POST',
    body: JSON.stringify({ model: MODEL, trainer_config: { ...TRAINER_CONFIG, ...trainer_config } }),
  })

describe('the status line', () => {
  it('of an error says what is wrong: arbor-ai shows nothing else of a failed initialize', async () => {
    const response = await initialize({ learning_rte: 1 })
    expect(response.status).toBe(422)
    expect(response.statusText).toBe('trainer_config: unknown key "learning_rte", did you mean "learning_rate"?')
    expect(((await response.json()) as { error: { message: string } }).error.message).toBe(response.statusText)
  })

  it('stays a line, whatever the message holds', async () => {
    const response = await initialize({ [`zürich\r\nset-cookie: x=1 ${'é'.repeat(900)}`]: 1 })
    expect(response.status).toBe(422)
    expect(response.headers.get('set-cookie')).toBeNull()
    expect(response.statusText).toMatch(/^[\x20-\x7e]{300,400}$/)
    expect(response.statusText).toContain('z?rich set-cookie: x=1')
  })

  it('of a success is the usual one', async () => {
    expect((await fetch(`${socket.baseUrl}models`)).statusText).toBe('OK')
  })
})

describe('a name of elsewhere that leads to this machine', () => {
  /** The status of /models, asked under a name; fetch would not let us. */
  const asked = (host: string) =>
    new Promise<number | undefined>((resolve, reject) => {
      const sent = request({ host: socket.host, port: socket.port, path: '/v1/models', headers: { host } }, (response) => {
        response.resume()
        resolve(response.statusCode)
      })
      sent.on('error', reject).end()
    })

  it('reads nothing here, as a page that had its own name resolved anew would', async () => {
    for (const host of ['evil.example', 'evil.example:7453', 'localhost.evil.example', '127.0.0.1.evil.example'])
      expect([host, await asked(host)]).toEqual([host, 403])
    for (const host of ['localhost', 'LOCALHOST:80', '127.0.0.1', '[::1]:7', 'arbor', 'me.localhost', 'box.local', hostname()])
      expect([host, await asked(host)]).toEqual([host, 200])
  })

  it('is answered where it was allowed, or where the server is open to others', () => {
    const as = (name: string) => new Request(`http://${name}/models`)
    expect(() => checkHost(as('hub.example'), '127.0.0.1', 'a.example, Hub.example')).not.toThrow()
    expect(() => checkHost(as('hub.example'), '127.0.0.1', 'a.example')).toThrow(/ARBOR_ALLOWED_HOSTS=hub\.example/)
    expect(() => checkHost(as('hub.example'), '0.0.0.0', '')).not.toThrow()
    expect(() => checkHost(as('hub.example'), '::1', '')).toThrow()
  })
})
