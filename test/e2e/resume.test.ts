// A run that was cut off, however it was, goes on as if it had not been: the same rewards and the same last adapter, bit for bit.

import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { ArborGRPO, ServerInfo } from '../../src/optimize'
import type { Loose } from '../../src/program'
import {
  adapterBytes,
  compile,
  exampleOf,
  failureOf,
  freshFolder,
  recordsOnDisk,
  runFolder,
  serve,
  timeless,
  vowels,
  whyNot,
} from './tiny'

const STEPS = { numTrainSteps: 6 }
const storagePath = freshFolder()
let missing: string | null
let server: ServerInfo
let whole: ReturnType<typeof trail>

beforeAll(async () => {
  missing = await whyNot()
  if (missing !== null) return
  server = await serve({ storagePath })
  whole = trail((await compile(server, STEPS)).compiler)
})
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))
afterAll(() => server?.close())

const trail = ({ run }: ArborGRPO) => ({
  records: run!.records.map(timeless),
  adapter: adapterBytes(join(runFolder(storagePath, run!.jobId), 'checkpoints/checkpoint_final')).toString('base64'),
})

/** A metric that does something at its n-th call, from 1. A step has twelve calls. */
function metricWith(at: number, act: () => unknown): (example: Loose, prediction: Loose) => number {
  let calls = 0
  return (example, prediction) => {
    const other = ++calls === at ? act() : undefined
    return other === undefined ? vowels(example, prediction) : (other as number)
  }
}

/** Starts a run that ends with an error, and answers both. */
async function broken(where: ServerInfo, options: object, rest: object = {}) {
  let compiler: ArborGRPO | null = null
  const error = await failureOf(compile(where, { ...STEPS, ...options }, { ...rest, watch: (made) => (compiler = made) }))
  return { error, run: compiler!.run! }
}

describe('resume', () => {
  it('goes on after an abort between and within steps, in the same server', async () => {
    for (const call of [24, 30]) {
      const stop = new AbortController()
      const { error, run } = await broken(
        server,
        { metric: metricWith(call, () => stop.abort(new Error('stopped by hand'))) },
        { signal: stop.signal },
      )
      expect(error.message).toBe('stopped by hand')
      expect(run.notes.join()).toContain(`resume with { resume: '${run.jobId}' }`)
      const done = run.records.length
      expect(done).toBeGreaterThan(0)
      // The abort of the first round comes at the end of the rollouts: that step may still be trained while the client leaves.
      const saved = recordsOnDisk(storagePath, run.jobId).length
      expect([done, done + 1]).toContain(saved)
      expect(run.notes.join()).toContain(`Interrupted after step ${saved}`)
      expect(adapterBytes(run.checkpoints['interrupted']!).length).toBeGreaterThan(1000)
      const { compiler } = await compile(server, STEPS, { resume: run.jobId })
      expect(compiler.run!.jobId).toBe(run.jobId)
      expect(trail(compiler)).toEqual(whole)
    }
  })

  it('goes on in another server on the same storage, by the checkpoint folder alone', async () => {
    const checkpoint = freshFolder()
    const stop = new AbortController()
    const metric = metricWith(40, () => stop.abort())
    const { run } = await broken(server, { checkpoint, metric }, { signal: stop.signal })
    const other = await serve({ storagePath })
    try {
      const { compiler } = await compile(other, { ...STEPS, checkpoint }, { resume: true })
      expect(compiler.run!.jobId).toBe(run.jobId)
      expect(trail(compiler)).toEqual(whole)
      expect(recordsOnDisk(storagePath, run.jobId).map(timeless)).toEqual(whole.records)
    } finally {
      await other.close()
    }
  })

  it('goes on after a metric that threw or returned no number, once it is mended', async () => {
    const throwing = metricWith(20, () => {
      throw new TypeError('gold is undefined')
    })
    const nan = metricWith(20, () => Number.NaN)
    for (const [metric, says] of [
      [throwing, /The metric threw on "\w+" with the prediction .*gold is undefined.*Mend the metric and resume/s],
      [
        nan,
        /The metric gave no reward on "\w+" with the prediction .* returned NaN; it must return a finite number or a boolean\. Mend the metric and resume/s,
      ],
    ] as const) {
      const { error, run } = await broken(server, { metric })
      expect(error.message).toMatch(says)
      expect(run.records).toHaveLength(1)
      const { compiler } = await compile(server, STEPS, { resume: run.jobId })
      expect(trail(compiler)).toEqual(whole)
    }
  })

  it('keeps the best score and the best policy of the first part', async () => {
    const options = { numStepsForVal: 2, checkpoint: freshFolder() }
    // Scores by decree: the policy after two steps is the best one.
    const scores = [0.1, 0.9, 0.2, 0.3]
    let asked = 0
    const metric = (example: Loose, prediction: Loose) =>
      example['answer'] === 'gold' ? scores[asked++]! : vowels(example, prediction)
    const judged = [exampleOf('one', 'gold')]
    const all = await compile(server, { ...STEPS, ...options, metric }, { valset: judged })
    expect(all.compiler.run!.validation.map((entry) => entry.score)).toEqual([10, 90, 20, 30])
    asked = 0
    const stop = new AbortController()
    let trained = 0
    const stopping = (example: Loose, prediction: Loose) => {
      if (example['answer'] !== 'gold' && ++trained === 12 * 4 + 3) stop.abort() // in step 5
      return metric(example, prediction)
    }
    const again = { ...STEPS, ...options, checkpoint: freshFolder() }
    const { run } = await broken(server, { ...again, metric: stopping }, { valset: judged, signal: stop.signal })
    expect(run.validation.map((entry) => entry.score)).toEqual([10, 90, 20])
    const { compiler } = await compile(server, { ...again, metric }, { valset: judged, resume: run.jobId })
    expect(compiler.run!.validation).toEqual(all.compiler.run!.validation)
    for (const name of ['best', 'last'])
      expect(adapterBytes(join(again.checkpoint, name))).toEqual(adapterBytes(join(options.checkpoint, name)))
    expect(adapterBytes(join(again.checkpoint, 'best'))).not.toEqual(adapterBytes(join(again.checkpoint, 'last')))
  })

  it('makes up for a validation that was cut off', async () => {
    const judged = [exampleOf('one', 'gold')]
    const options = { ...STEPS, numStepsForVal: 2 }
    const all = await compile(server, options, { valset: judged })
    const stop = new AbortController()
    let judgements = 0
    const metric = (example: Loose, prediction: Loose) => {
      if (example['answer'] === 'gold' && ++judgements === 2) stop.abort() // the validation after step 2
      return vowels(example, prediction)
    }
    const { run } = await broken(server, { ...options, metric }, { valset: judged, signal: stop.signal })
    const { compiler } = await compile(server, options, { valset: judged, resume: run.jobId })
    expect(compiler.run!.validation).toEqual(all.compiler.run!.validation)
    expect(trail(compiler)).toEqual(trail(all.compiler))
  })

  it('says what is wrong when there is nothing to resume', async () => {
    const message = async (options: object, rest: object) => (await failureOf(compile(server, options, rest))).message
    const empty = freshFolder()
    expect(await message({ checkpoint: empty }, { resume: true })).toContain(`There is no run to resume in ${empty}`)
    expect(await message({}, { resume: true })).toContain("checkpoint: 'some/path'")
    expect(await message({}, { resume: 'grpo:tiny:nobody:20260101' })).toContain('There is no run "grpo:tiny:nobody:20260101"')
  })
})
