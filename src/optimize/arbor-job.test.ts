// The wire calls against a small HTTP server that plays an Arbor server, also one that misbehaves.

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { ProtocolError } from '../errors'
import type { InitializeRequest, StepRecord } from '../protocol'
import { ArborJob } from './arbor-job'

const closing: (() => void)[] = []
afterEach(() => {
  for (const close of closing.splice(0)) close()
})

const STATUS = {
  job_id: 'grpo:m:a:1',
  status: 'running',
  current_model: 'grpo:m:a:1',
  checkpoints: {},
  last_checkpoint: null,
  pending_batch_ids: [4],
}

type Answer = (path: string, response: ServerResponse, body: Record<string, unknown>) => void

/** A server that answers initialize as Arbor does, and everything else with `answer`. */
async function fake(answer: Answer): Promise<string> {
  const server = createServer(async (request: IncomingMessage, response) => {
    let text = ''
    for await (const chunk of request) text += String(chunk)
    const path = request.url!.replace('/v1/fine_tuning/grpo/', '')
    if (path === 'initialize') response.end(JSON.stringify(STATUS))
    else answer(path, response, text === '' ? {} : (JSON.parse(text) as Record<string, unknown>))
  })
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  closing.push(() => {
    server.close()
    server.closeAllConnections()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1` // without the slash at the end, as people write it
}

const open = async (answer: Answer) => ArborJob.initialize(await fake(answer), { model: 'm' } as InitializeRequest)

const event = (data: object, name?: string) => `${name ? `event: ${name}\n` : ''}data: ${JSON.stringify(data)}\n\n`

async function read(job: ArborJob, signal?: AbortSignal): Promise<number[]> {
  const steps: number[] = []
  for await (const record of job.records(0, signal)) steps.push((record as StepRecord).step)
  return steps
}

describe('a step', () => {
  it('is sent with the messages that samples of a group share once', async () => {
    let sent: unknown
    const job = await open((_, response, body) => {
      sent = body['batch']
      response.end(JSON.stringify(STATUS))
    })
    const sample = (question: string, text: string, reward: number) => ({
      messages: [{ role: 'user', content: question }],
      completion: { role: 'assistant', content: text },
      reward,
    })
    const group = [sample('q', 'a', 1), sample('q', 'b', 0), sample('p', 'c', 0), sample('q', 'd', 1)]
    await job.step({ batch: [group, [sample('q', 'e', 1)]], groups: [], metrics: {} })
    const { messages: _, ...second } = group[1]!
    expect(sent).toEqual([[group[0], second, group[2], group[3]], [sample('q', 'e', 1)]])
  })
})

describe('the calls', () => {
  it('name the job, and answer its status', async () => {
    const seen: unknown[] = []
    const job = await open((path, response, body) => {
      seen.push([path, body])
      response.end(JSON.stringify(STATUS))
    })
    expect((await job.status()).pending_batch_ids).toEqual([4])
    await job.step({ batch_id: 4, batch: [] })
    await job.checkpoint('best', { score: 0 })
    await job.terminate()
    expect(seen).toEqual([
      ['status', { job_id: STATUS.job_id }],
      ['step', { job_id: STATUS.job_id, model: STATUS.current_model, batch_id: 4, batch: [] }],
      ['checkpoint', { job_id: STATUS.job_id, checkpoint_name: 'best', metadata: { score: 0 } }],
      ['terminate', { job_id: STATUS.job_id }],
    ])
  })

  it.each([
    [JSON.stringify({ error: { message: 'no such job' } }), 'no such job'],
    [JSON.stringify({ detail: 'Job not found' }), '"Job not found"'],
    ['<html>Bad gateway</html>', '<html>Bad gateway</html>'],
    ['', 'answered 400'],
  ])('an error tells what the server said: %s', async (body, said) => {
    const job = await open((_, response) => response.writeHead(400).end(body))
    const error = await job.status().catch((caught: unknown) => caught)
    expect(error).toBeInstanceOf(ProtocolError)
    expect(error).toMatchObject({ status: 400, message: expect.stringContaining(said) as string })
  })

  it('no server: where it was looked for, and what to do', async () => {
    const error = await ArborJob.initialize('http://127.0.0.1:9/v1', { model: 'm' } as InitializeRequest).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(ProtocolError)
    expect(error).toMatchObject({ status: 0, message: expect.stringMatching(/127\.0\.0\.1:9.*start it again.*resume/) as string })
  })
})

describe('the stream of records', () => {
  it('comes through however it is cut, and ends with the job', async () => {
    const text = `: waiting\n\n${event({ step: 1, title: 'Zürich' })}${event({ step: 2 })}${event({ status: 'succeeded', reason: null }, 'end')}`
    const job = await open(async (path, response) => {
      expect(path).toBe(`steps?job_id=${encodeURIComponent(STATUS.job_id)}&after=0`)
      for (const byte of Buffer.from(text)) response.write(Buffer.of(byte))
      response.end()
    })
    expect(await read(job)).toEqual([1, 2])
  })

  it('throws with the reason when the job failed', async () => {
    const job = await open((_, response) =>
      response.end(event({ status: 'failed', reason: 'step 2: the device is gone' }, 'end')),
    )
    await expect(read(job)).rejects.toThrow(/ended as "failed": step 2: the device is gone/)
  })

  it('a stream that just stops, or breaks, is a server that went away', async () => {
    const stops = await open((_, response) => response.end(event({ step: 1 })))
    await expect(read(stops)).rejects.toThrow(
      /closed the record stream .* start the server again and compile with \{ resume: 'grpo:m:a:1' \}/,
    )
    const breaks = await open((_, response) => response.write(event({ step: 1 }), () => response.destroy()))
    const error = await read(breaks).catch((caught: unknown) => caught)
    expect(error).toBeInstanceOf(ProtocolError)
    expect((error as Error).message).toMatch(/went away .* start the server again and compile with \{ resume: 'grpo:m:a:1' \}/)
  })

  it("an abort ends it with the caller's own reason", async () => {
    const stop = new AbortController()
    const job = await open((_, response) => {
      response.write(event({ step: 1 }))
      setTimeout(() => stop.abort(new Error('enough')), 20)
    })
    await expect(read(job, stop.signal)).rejects.toThrow('enough')
  })
})
