// What a handler answers, as it arrives over a real socket.

import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { MODEL, TRAINER_CONFIG, testApp } from './fixture'
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
