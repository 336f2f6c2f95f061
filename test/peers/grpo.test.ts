// Arbor's own Python client (arbor-ai's ArborGRPO) trains the model that ships through our server, which takes it for Arbor.

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { ServerInfo } from '../../src/optimize'
import { GRPOStatusSchema, type StepRecord } from '../../src/protocol'
import { freshFolder, recordsOnDisk, serve, whyNot } from '../e2e/tiny'
import { MODEL_NAME, testRows } from './data'
import { noPeers, python, SLOW } from './python'

interface Call {
  /** Behind /v1/. */
  readonly path: string
  readonly request: Record<string, unknown>
  readonly status: number
  readonly answer: Record<string, unknown>
}

const STEPS = 2
const EXAMPLES = 2
const ROLLOUTS = 4
const storagePath = freshFolder()
let missing: string | null
let server: ServerInfo
let calls: Call[]
let trainedModel: string
let records: StepRecord[]
beforeAll(async () => {
  missing = noPeers() ?? (await whyNot())
  if (missing !== null) return
  server = await serve({ model: MODEL_NAME, storagePath })
  const answer = await python<{ calls: Call[]; model: string }>('grpo.py', {
    base_url: server.baseUrl,
    model: MODEL_NAME,
    rows: await testRows(12),
    max_tokens: 96,
    steps: STEPS,
    examples: EXAMPLES,
    rollouts: ROLLOUTS,
    train_kwargs: {
      learning_rate: 3e-4,
      lr_scheduler_type: 'constant',
      max_seq_len: 512,
      lora_config: { r: 16, lora_alpha: 32, target_modules: ['q_proj', 'v_proj'], lora_dropout: 0 },
    },
  })
  calls = answer.calls
  trainedModel = answer.model
  records = recordsOnDisk(storagePath, String(calls[0]!.answer['job_id']))
}, SLOW)
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))
afterAll(() => server?.close())

const grpo = (name: string) => calls.filter((call) => call.path === `fine_tuning/grpo/${name}`)

describe('ArborGRPO.compile', () => {
  it('gets 200 and a status of six fields from every call', () => {
    for (const call of calls) {
      expect(call.status, `${call.path}: ${JSON.stringify(call.answer)}`).toBe(200)
      expect(GRPOStatusSchema.parse(call.answer)).toEqual(call.answer)
    }
    expect(calls[0]!.path).toBe('fine_tuning/grpo/initialize')
    expect(calls.at(-1)!.path).toBe('fine_tuning/grpo/terminate')
  })

  it('posts every group under an id of its own that the server offered', () => {
    const steps = grpo('step')
    expect(steps.length).toBeGreaterThanOrEqual(STEPS * EXAMPLES)
    const ids = steps.map((call) => call.request['batch_id'] as number)
    expect(ids).toEqual([...new Set(ids)])
    const offered = grpo('status').flatMap((call) => call.answer['pending_batch_ids'] as number[])
    for (const id of ids) expect(offered).toContain(id)
    for (const { request } of steps) expect(request['batch']).toHaveLength(ROLLOUTS)
  })

  it('makes one update of every group whose rewards differ', () => {
    expect(records).toHaveLength(grpo('step').length)
    let updates = 0
    for (const record of records) {
      if (new Set(record.groups[0]!.rewards).size > 1) updates++
      expect(record.policy_version).toBe(updates)
      expect(record.rows_total).toBe(ROLLOUTS)
    }
  })

  it('trains on the tokens that were sampled wherever dspy sends the sampled text', () => {
    const sources = records.flatMap((record) => record.groups.flatMap((group) => group.sources))
    expect(sources).toContain('text')
    expect(sources).not.toContain('id') // Python's clients know no completion ids
    // null: nothing is trained of a group whose rewards are equal, and one that an earlier policy sampled has no such comparison
    for (const { logprob_gap_max: gap } of records) expect(gap ?? 0).toBeLessThanOrEqual(1e-5)
  })

  it('ends with a program whose model is the trained policy', async () => {
    expect(trainedModel).toBe(`openai/arbor:${calls[0]!.answer['job_id']}`)
    const served = await fetch(`${server.baseUrl}models`).then(
      (response) => response.json() as Promise<{ data: { id: string }[] }>,
    )
    expect(served.data.map((model) => model.id)).toContain(trainedModel.replace('openai/arbor:', ''))
  })
})
