// A job on a server that plays a real Arbor: ids that come and go, groups that are short, a trainer that died.

import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { ProtocolError } from '../errors'
import type { StepRecord, StepSample } from '../protocol'
import { ArborClusterJob } from './cluster-job'

const closing: (() => void)[] = []
afterEach(() => {
  for (const close of closing.splice(0)) close()
})

interface Posted {
  readonly batch_id: number
  readonly batch: StepSample[]
}

/** @param pending what `status` answers after so many questions and posts @param state its status */
async function open(
  pending: (asked: number, posted: number) => number[],
  options: { state?: string; patience?: number; signal?: AbortSignal } = {},
) {
  const posted: Posted[] = []
  let asked = 0
  const server = createServer(async (request, response) => {
    let text = ''
    for await (const chunk of request) text += String(chunk)
    const name = request.url!.split('/').at(-1)
    if (name === 'step') posted.push(JSON.parse(text) as Posted)
    response.end(
      JSON.stringify({
        job_id: 'grpo:m:a:1',
        status: options.state ?? 'running',
        current_model: 'grpo:m:a:1',
        checkpoints: name === 'checkpoint' ? { best: { checkpoint_name: 'best', checkpoint_dir: '/there' } } : {},
        last_checkpoint: name === 'checkpoint' ? 'best' : null,
        pending_batch_ids: pending(name === 'status' ? ++asked : asked, posted.length),
      }),
    )
  })
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  closing.push(() => {
    server.close()
    server.closeAllConnections()
  })
  const apiBase = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/`
  const trainKwargs = { num_generations: 4, scale_rewards: false, learning_rate: 1e-5 }
  const job = await ArborClusterJob.open({
    apiBase,
    model: 'openai/arbor:m',
    trainKwargs,
    steps: 2,
    patience: 60_000,
    ...options,
  })
  return { job, posted }
}

const group = (rewards: readonly number[]): StepSample[] =>
  rewards.map((reward) => ({
    messages: [{ role: 'user', content: 'q' }],
    completion: { role: 'assistant', content: `worth ${reward}` },
    reward,
    completion_id: 'c#0',
    rewards: [reward],
  }))
const step = (...batch: StepSample[][]) => ({
  batch,
  groups: batch.map((_, example) => ({ predictor: 'p', example, title: `example ${example}` })),
  metrics: { format_failures: 0 },
})

describe('a step', () => {
  it('posts each group under the next id that is asked for, filled up and without our extensions', async () => {
    const { job, posted } = await open((_, done) => (done === 0 ? [0, 1] : done === 1 ? [0, 1] : [2, 3]))
    await job.step(step(group([1, 0, 0, 1]), group([1, 0, 0]), group([1, 1])))
    expect(posted.map(({ batch_id }) => batch_id)).toEqual([0, 1, 2])
    expect(posted.map(({ batch }) => batch.map(({ reward }) => reward))).toEqual([
      [1, 0, 0, 1],
      [1, 0, 0, 1],
      [1, 1, 1, 1],
    ])
    for (const sample of posted[0]!.batch) expect(Object.keys(sample)).toEqual(['messages', 'completion', 'reward'])
  })

  it('makes a record of what is known, and hands it out when the trainer asks for more', async () => {
    let more = false
    const { job } = await open((_, done) => (done === 0 ? [0] : more ? [1] : [0]))
    await job.step(step(group([1, 0, 0, 0])))
    let record: StepRecord | null = null
    const coming = job
      .records(0)
      .next()
      .then(({ value }) => (record = value as StepRecord))
    await new Promise((wait) => setTimeout(wait, 50))
    expect(record).toBeNull()
    more = true
    expect(await coming).toMatchObject({
      step: 1,
      policy_version: 1,
      reward: 0.25,
      reward_max: 1,
      format_failures: 0,
      rows_total: 4,
    })
    expect(record!.groups[0]).toMatchObject({
      title: 'example 0',
      rewards: [1, 0, 0, 0],
      advantages: [0.75, -0.25, -0.25, -0.25],
    })
    expect(record!.loss).toBeNaN()
  })

  it('does not wait for more after the last step', async () => {
    const { job } = await open((_, done) => [0, 1].slice(done))
    const records = job.records(0)
    await job.step(step(group([1, 0, 0, 0])))
    expect((await records.next()).value).toMatchObject({ step: 1 })
    await job.step(step(group([0, 0, 0, 0])))
    expect((await records.next()).value).toMatchObject({ step: 2, frac_reward_zero_std: 1 })
    expect((await records.next()).done).toBe(true)
  })
})

describe('a trainer that is gone', () => {
  it('is an error after a while, for it goes on as "running"', async () => {
    const { job } = await open(() => [], { patience: 0 })
    const error = await job.step(step(group([1, 0, 0, 0]))).catch((caught: unknown) => caught)
    expect(error).toBeInstanceOf(ProtocolError)
    expect((error as Error).message).toMatch(/asked for no batch in 0 s; after 0 groups its trainer may have died/)
  })

  it('or a job that was cancelled is one at once', async () => {
    const { job } = await open(() => [], { state: 'cancelled' })
    await expect(job.step(step(group([1, 0, 0, 0])))).rejects.toThrow(/ended as "cancelled"/)
  })

  it('is not waited for when the caller gives up', async () => {
    const stop = new AbortController()
    const { job } = await open(() => [], { signal: stop.signal })
    setTimeout(() => stop.abort(new Error('enough')), 20)
    await expect(job.step(step(group([1, 0, 0, 0])))).rejects.toThrow('enough')
  })
})

it('a checkpoint is where Arbor says, also when its status tells of none yet', async () => {
  const { job } = await open(() => [0])
  const { checkpoints } = await job.checkpoint('best', { score: 1 })
  expect(checkpoints).toMatchObject({ best: { checkpoint_dir: '/there', metadata: { score: 1 } } })
})
