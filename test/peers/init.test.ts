// The lines of src/python/README.md, run as they stand there: arbor.init() starts our server, ArborGRPO trains on it.

import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { freshFolder, ROOT, recordsOnDisk, whyNot } from '../e2e/tiny'
import { noPeers, python, SLOW } from './python'

interface Said {
  readonly printed: string
  readonly result: unknown
}

interface Answer {
  readonly printed: string
  /** Before and after training, percent of 100 questions. */
  readonly scores: [number, number]
  /** Groups that the client skipped: dspy drops an answer with some of its fields only, and an example none of whose rollouts are left. */
  readonly skipped: number
  readonly server: { readonly base_url: string; readonly storage_path: string; readonly port: number }
  readonly job: string
  readonly models: string[]
  readonly watched: Said
  readonly killed: Said
  readonly cancelled: Said
  readonly watched_after: Said
  readonly ended: Said
  readonly second: { readonly server: Answer['server']; readonly outputs: string[]; readonly remembered: string[] }
}

/** As that README has them. */
const STEPS = 20
const EXAMPLES = 8
/** Python's client can't say how many groups it has; where that can't be told from what was sampled, one waits, and the last step leaves it (offered-ids.ts). */
const LEFT_OVER = 2
const storage = freshFolder()
let missing: string | null
let answer: Answer
beforeAll(async () => {
  missing = noPeers() ?? (await whyNot())
  if (missing !== null) return
  const [, code] = readFileSync(join(ROOT, 'src/python/README.md'), 'utf8').match(
    /^## From Python$[\s\S]*?^```python\n([\s\S]*?)^```$/m,
  )!
  // HOME is the test's own; the native library stays where it is built.
  const ARBOR_HOME = process.env['ARBOR_HOME'] ?? join(homedir(), '.arbor')
  const environment = { PYTHONPATH: join(ROOT, 'src/python'), ARBOR_DEVICE: 'cpu', ARBOR_HOME }
  answer = await python<Answer>('init.py', { code, storage }, environment)
}, SLOW)
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))

describe('the lines of the README', () => {
  it('start a server that loads the model that they name, and train on it', () => {
    expect(answer.server.base_url).toBe(`http://127.0.0.1:${answer.server.port}/v1/`)
    expect(answer.printed).toContain(`Arbor server started on 127.0.0.1:${answer.server.port}`)
    expect(answer.job).toMatch(/^grpo:arbor-tiny:[a-z]+-[a-z]+:\d{8}$/)
    expect(answer.models).toEqual(expect.arrayContaining(['arbor-tiny', answer.job, `${answer.job}@last`]))
  })

  it('bring what they promise: about 90 % of the answers right, of about 40 before', () => {
    const [before, after] = answer.scores // measured: 30 to 52 → 81 to 97, in 28 runs; a standard deviation of one is 5 at 100 questions
    expect(before).toBeGreaterThan(25)
    expect(after).toBeGreaterThan(before + 15)
  })

  it('keep the run in the folder that arbor.init told: a record for the groups of every step', () => {
    expect(answer.server.storage_path.startsWith(storage)).toBe(true)
    const records = recordsOnDisk(answer.server.storage_path, answer.job)
    expect(records.length).toBeGreaterThanOrEqual(STEPS * EXAMPLES - answer.skipped - LEFT_OVER)
    expect(records.length).toBeLessThanOrEqual(STEPS * EXAMPLES)
    expect(records.at(-1)!.policy_version).toBeGreaterThan(STEPS)
  })
})

describe("arbor's functions", () => {
  it('watch_job tells every update of a GRPO job, and its end', () => {
    const lines = answer.watched.printed.split('\n')
    expect(lines.filter((line) => line.includes('🔧 Update')).length).toBe(
      recordsOnDisk(answer.server.storage_path, answer.job).length,
    )
    expect(answer.watched.printed).toContain('🎉 Job SUCCEEDED!')
    expect(answer.watched.printed).toContain(`🎯 Fine-tuned model: ${answer.job}`)
    expect(answer.watched.printed).not.toContain('Error')
  })

  it('shutdown_job lets go of a model, and cancels a job, which watch_job then tells', () => {
    expect(answer.killed.result).toMatchObject({ type: 'inference_job', status: 'terminated' })
    expect(answer.cancelled.result).toMatchObject({ type: 'training_job', status: 'cancelled' })
    expect(answer.watched_after.printed).toContain('🛑 Job CANCELLED!')
  })

  it('shutdown ends the server, another init starts one again, and the end of Python ends that', async () => {
    expect(answer.ended.printed).toContain('Arbor server shutdown complete')
    expect(answer.second.outputs).toHaveLength(1)
    expect(answer.second.remembered).toHaveLength(1) // the policy that the first one trained
    for (const { base_url } of [answer.server, answer.second.server]) await expect(fetch(`${base_url}health`)).rejects.toThrow()
  })
})
