// compile() over a real server process with the real engine: the same seed gives the same run, bit for bit, whatever happens beside it.

import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { ServerInfo } from '../../src/optimize'
import {
  adapterBytes,
  type CompileRun,
  compile,
  exampleOf,
  freshFolder,
  runFolder,
  serve,
  sleep,
  timeless,
  tinyLM,
  whyNot,
} from './tiny'

const storagePath = freshFolder()
let missing: string | null
let server: ServerInfo
beforeAll(async () => {
  missing = await whyNot()
  if (missing === null) server = await serve({ storagePath })
})
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))
afterAll(() => server?.close())

const finalAdapter = ({ compiler }: CompileRun) =>
  adapterBytes(join(runFolder(storagePath, compiler.run!.jobId), 'checkpoints/checkpoint_final'))

/** All that a run did, without its name and times; the adapter to the last bit. */
const trail = (run: CompileRun) => ({
  records: run.compiler.run!.records.map(timeless),
  adapter: finalAdapter(run).toString('base64'),
})

describe('the same seed gives the same rollouts and the same policy', () => {
  let first: ReturnType<typeof trail>
  beforeAll(async () => {
    if (missing === null) first = trail(await compile(server))
  })

  it('again', async () => {
    expect(trail(await compile(server))).toEqual(first)
  })

  it('one rollout at a time, or sixteen', async () => {
    expect(trail(await compile(server, { numThreads: 1 }))).toEqual(first)
    expect(trail(await compile(server, { numThreads: 16 }))).toEqual(first)
  })

  it('in a server of its own', async () => {
    const other = await serve({ storagePath })
    try {
      expect(trail(await compile(other))).toEqual(first)
    } finally {
      await other.close()
    }
  })

  it('with other requests in flight', async () => {
    let over = false
    let answered = 0
    const chatter = async (n: number) => {
      const lm = tinyLM(server, { maxTokens: 20, n: 2 })
      while (!over) {
        await lm.call({ prompt: `chatter ${n}, ${'word '.repeat(answered++ % 7)}`, seed: answered })
        await sleep(1)
      }
    }
    const chatting = [1, 2, 3].map(chatter)
    try {
      expect(trail(await compile(server))).toEqual(first)
      expect(answered).toBeGreaterThan(5)
    } finally {
      over = true
      await Promise.all(chatting)
    }
  })

  it('and another seed another run', async () => {
    const other = trail(await compile(server, { seed: 8 }))
    expect(other.adapter).not.toBe(first.adapter)
    expect(other.records[0]!.groups).not.toEqual(first.records![0]!.groups)
  })

  it('with two jobs at the same time on one server', async () => {
    const [one, two] = await Promise.all([compile(server), compile(server, { seed: 8 })])
    expect(trail(one)).toEqual(first)
    expect(trail(two)).not.toEqual(first)
    expect(one.compiler.run!.jobId).not.toBe(two.compiler.run!.jobId)
  })
})

describe('a compile with a validation set', () => {
  it('is validated before, between and after; the best and the last policy are saved and copied into the folder', async () => {
    const folder = freshFolder()
    const valset = ['one', 'seven'].map((question) => exampleOf(question))
    const { compiler } = await compile(server, { checkpoint: folder, numTrainSteps: 4, numStepsForVal: 2 }, { valset })
    const { validation, checkpoints, records, jobId } = compiler.run!
    expect(validation.map((entry) => entry.step)).toEqual([0, 2, 4])
    expect(records.map((record) => record.validation_score !== null)).toEqual([true, false, true, false])
    expect(adapterBytes(join(folder, 'last'))).toEqual(adapterBytes(checkpoints['model_checkpoint_last']!))
    const improved = validation.slice(1).some((entry) => entry.score > validation[0]!.score)
    expect('model_checkpoint_best' in checkpoints).toBe(improved)
    expect(adapterBytes(join(folder, 'last'))).toEqual(
      adapterBytes(join(runFolder(storagePath, jobId), 'checkpoints/checkpoint_final')),
    )
  })
})
