import { connect } from 'node:net'
import { describe, expect, it } from 'vitest'
import { byteCodec, initialize, MODEL, ScriptedEngine, sampledGroup, testApp } from './fixture'
import { openSocket } from './socket'
import { eventStream } from './sse'

const failed = () => 'failed'
const KIB = 'x'.repeat(1024)
const turns = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** A stream of `count` events of 100 KiB; `sent` tells how many were written. */
function large(count: number) {
  const state = { sent: 0, ended: false }
  const response = eventStream(
    async (send, signal, reader) => {
      for (let i = 0; i < count && !signal.aborted; i++) {
        send(KIB.repeat(100), { id: String(i) })
        state.sent++
        await reader.caughtUp()
      }
      state.ended = true
    },
    { signal: new AbortController().signal, failed },
  )
  return { response, state }
}

describe('a stream of events', () => {
  it('waits for a reader that does not read, and gives it everything when it does', async () => {
    const { response, state } = large(50)
    await turns(50)
    expect(state).toEqual({ sent: 1, ended: false })
    const ids = [...(await response.text()).matchAll(/^id: (\d+)$/gm)].map(([, id]) => Number(id))
    expect(ids).toEqual(Array.from({ length: 50 }, (_, i) => i))
    expect(state.ended).toBe(true)
  })

  it('ends its source when a reader that was behind goes away', async () => {
    const { response, state } = large(50)
    await turns(10)
    await response.body!.cancel()
    await turns(10)
    expect(state).toEqual({ sent: 1, ended: true })
  })

  it('sends an error of its source as the last data', async () => {
    const source = () => Promise.reject(new Error('gone wrong'))
    const response = eventStream(source, { signal: new AbortController().signal, failed: (error) => String(error) })
    expect(await response.text()).toBe('data: Error: gone wrong\n\n')
  })

  it('over a socket that nobody reads, holds what the buffers take and no more', async () => {
    const { response, state } = large(2000) // 200 MB
    const server = await openSocket(async () => response, { port: 0 })
    const client = connect(server.port, server.host)
    client.pause()
    client.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
    await turns(300)
    const first = state.sent
    await turns(300)
    expect(state.sent).toBe(first)
    expect(first).toBeLessThan(200) // the system's own buffers hold some megabytes
    client.destroy()
    await expect.poll(() => state.ended).toBe(true)
    await server.close()
  })
})

describe('the streams of the server', () => {
  it('a chat completion that is read late comes in few pieces, and whole', async () => {
    const reply = 'abc '.repeat(400)
    const app = await testApp({ engine: new ScriptedEngine(reply) })
    const ask = () => app.post('/v1/chat/completions', { model: MODEL, messages: [{ role: 'user', content: 'q' }], stream: true })
    const pieces = (text: string) =>
      [...text.matchAll(/^data: (\{.*)$/gm)].map(([, data]) => JSON.parse(data!).choices[0].delta.content ?? '')
    const eager = pieces(await (await ask()).text())
    const response = await ask()
    await turns(300)
    const late = pieces(await response.text())
    expect(eager.join('')).toBe(reply)
    expect(late.join('')).toBe(reply)
    expect(eager.length).toBe(byteCodec.encode(reply).length + 2) // role, a piece a token, end
    expect(late.length).toBeLessThan(eager.length / 2)
  })

  it('step records go on after the last event that a browser had, without texts where it asks for none', async () => {
    const app = await testApp()
    const { job_id } = await initialize(app)
    for (const batch_id of [0, 1, 2])
      await app.call('/fine_tuning/grpo/step', {
        job_id,
        model: job_id,
        batch_id,
        batch: await sampledGroup(app, job_id, 'why?'),
      })
    await app.call('/fine_tuning/grpo/terminate', { job_id })
    const read = async (query: string, headers = {}) => {
      const url = `http://localhost/fine_tuning/grpo/steps?job_id=${job_id}${query}`
      const text = await (await app.fetch(new Request(url, { headers }))).text()
      return [...text.matchAll(/^event: step\nid: \d+\ndata: (.*)$/gm)].map(([, data]) => JSON.parse(data!))
    }
    const all = await read('')
    expect(all.map(({ step }) => step)).toEqual([1, 2, 3])
    expect(all[0].groups[0].completions).toHaveLength(4)
    const light = await read('&texts=0', { 'last-event-id': '1' })
    expect(light.map(({ step }) => step)).toEqual([2, 3])
    expect(light[0]).toEqual({ ...all[1], groups: [{ ...all[1].groups[0], completions: [] }] })
  })
})
