// compile() over a real server process with the real engine: it learns, and the same seed gives the same run, bit for bit.

import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { ServerInfo } from '../../src/optimize'
import { context } from '../../src/program'
import { StepRecordSchema } from '../../src/protocol'
import {
  adapterBytes,
  type CompileRun,
  compile,
  exampleOf,
  freshFolder,
  OPTIONS,
  PlainTextAdapter,
  recordsOnDisk,
  runFolder,
  serve,
  sleep,
  TRAIN_KWARGS,
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

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
const rewards = ({ compiler }: CompileRun) => compiler.run!.records.map((record) => record.reward)
const finalAdapter = ({ compiler }: CompileRun) =>
  adapterBytes(join(runFolder(storagePath, compiler.run!.jobId), 'checkpoints/checkpoint_final'))

/** All that a run did, without its name and times; the adapter to the last bit. */
const trail = (run: CompileRun) => ({
  records: run.compiler.run!.records.map(timeless),
  adapter: finalAdapter(run).toString('base64'),
})

describe('a compile', () => {
  let run: CompileRun
  beforeAll(async () => {
    if (missing !== null) return
    const larger = { numDspyExamplesPerGrpoStep: 6, numRolloutsPerGrpoStep: 8, numTrainSteps: 15 }
    run = await compile(server, { ...larger, trainKwargs: { ...TRAIN_KWARGS, learning_rate: 0.01 } })
  })

  it('learns: the mean reward rises', () => {
    // The seed is fixed, so there is no false alarm on one machine. On twelve seeds and rates the rise was 0.09 to 0.66, at this
    // rate 0.25 to 0.33; a step's mean of 48 rewards has a standard error of about 0.02.
    expect(mean(rewards(run).slice(-3)) - mean(rewards(run).slice(0, 3))).toBeGreaterThan(0.15)
  })

  it('trains on the logprobs that were sampled, to rounding', () => {
    const gaps = run.compiler.run!.records.map((record) => record.logprob_gap_max)
    for (const gap of gaps) expect(gap).toBeLessThanOrEqual(1e-5)
    expect(gaps).toHaveLength(15)
  })

  it('finds the tokens of every completion by its id', () => {
    const groups = run.compiler.run!.records.flatMap((record) => record.groups)
    expect(new Set(groups.flatMap((group) => group.sources))).toEqual(new Set(['id']))
    expect(groups).toHaveLength(15 * 6)
  })

  it('has the same records on disk as in the notebook, and they fit their schema', () => {
    const { records, jobId } = run.compiler.run!
    expect(records.map((record) => StepRecordSchema.parse(record))).toEqual(recordsOnDisk(storagePath, jobId))
    expect(records.map((record) => record.step)).toEqual(Array.from({ length: 15 }, (_, i) => i + 1))
    expect(records.map((record) => record.policy_version)).toEqual(records.map((record) => record.step))
  })

  it('answers with a program that speaks with the trained weights, and leaves the student alone', async () => {
    const { program, compiler } = run
    expect(program.answer.lm!.model).toBe(`openai/arbor:${compiler.run!.model}`)
    const ask = () => program.call({ question: 'one' })
    const score = async () => {
      const answers = await context({ adapter: new PlainTextAdapter() }, () => Promise.all(Array.from({ length: 16 }, ask)))
      return mean(answers.map((answer) => OPTIONS.metric({}, answer as never) as number))
    }
    expect(await score()).toBeGreaterThan(0.35) // before training 0.2, and sixteen unseeded answers have a standard error of 0.03
  })
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
