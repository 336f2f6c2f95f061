// Arbor's own Python client (arbor-ai's ArborGRPO) trains the model that ships through our server, which it takes for Arbor.

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { ServerInfo } from '../../src/optimize'
import { GRPOStatusSchema, type StepRecord } from '../../src/protocol'
import { freshFolder, recordsOnDisk, serve, whyNot } from '../e2e/tiny'
import { type Call, recordedCalls, shape } from '../golden/arbor/shape'
import { MODEL_NAME, testRows } from './data'
import { noPeers, python, SLOW } from './python'
import { type RecordedRequest, type RecordingProxy, recordingProxy } from './recording-proxy'

/** What a person sees of a compile that ends with an error. */
interface Broken {
  readonly type: string
  readonly message: string
  readonly printed: string
}

interface Answer {
  readonly models: string[]
  readonly launches: string[]
  readonly refused: Broken | null
  readonly failed: Broken | null
  readonly too_long: string | null
}

const STEPS = 2
const EXAMPLES = 3
const ROLLOUTS = 4
const GRPO = 'fine_tuning/grpo/'
const storagePath = freshFolder()
let missing: string | null
let server: ServerInfo
let proxy: RecordingProxy
let answer: Answer
/** The compiles that went well: with /v1/ as their base, with /v1, and that of dspy's own GRPO. */
let compiles: (readonly RecordedRequest[])[]
beforeAll(async () => {
  missing = noPeers() ?? (await whyNot())
  if (missing !== null) return
  server = await serve({ model: MODEL_NAME, storagePath })
  proxy = await recordingProxy(server.baseUrl)
  const rows = await testRows(14)
  answer = await python<Answer>('grpo.py', {
    base_urls: [proxy.baseUrl, proxy.baseUrl.replace(/\/$/, '')],
    model: MODEL_NAME,
    rows: rows.slice(0, 12),
    valset: rows.slice(12),
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
  const at = (name: string) => proxy.calls.flatMap(({ path }, i) => (path.endsWith(name) ? [i] : []))
  compiles = [0, 1, 2].map((i) => proxy.calls.slice(at('/initialize')[i]!, at('/terminate')[i]! + 1))
}, SLOW)
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))
afterAll(async () => {
  proxy?.close()
  await server?.close()
})

const named = (calls: readonly RecordedRequest[], name: string) => calls.filter(({ path }) => path.endsWith(`${GRPO}${name}`))
const jobOf = (calls: readonly RecordedRequest[]) => String(calls[0]!.answer['job_id'])
const pending = ({ answer: { pending_batch_ids: ids } }: RecordedRequest) => ids as number[]
const recordsOf = (calls: readonly RecordedRequest[]): StepRecord[] => recordsOnDisk(storagePath, jobOf(calls))

describe.each([
  { title: 'with an api_base that ends in /v1/', i: 0, prefix: '/v1/' },
  { title: 'with an api_base that ends in /v1, again with the same optimizer', i: 1, prefix: '/' },
])('ArborGRPO.compile $title', ({ i, prefix }) => {
  it('gets 200 from every call, and a status of six fields', () => {
    for (const call of compiles[i]!) {
      expect(call.status, `${call.path}: ${JSON.stringify(call.answer)}`).toBe(200)
      if (call.path.includes(GRPO)) expect(GRPOStatusSchema.parse(call.answer)).toEqual(call.answer)
    }
    expect(compiles[i]![0]!.path).toBe(`${prefix}${GRPO}initialize`)
    expect(named(compiles[i]!, 'terminate')).toHaveLength(1)
  })

  it('sends and gets what the recorded compiles sent and got, by shape', () => {
    const recorded = recordedCalls()
    const kinds = new Set<string>()
    for (const call of compiles[i]!) {
      const kind = call.path.replace('/v1/', '/')
      const same = recorded.filter((one) => one.path.replace('/v1/', '/') === kind)
      const shapes = same.map((one) => ({ request: shape(one.request), answer: shape(one.answer) }))
      expect(
        shapes.some((theirs) => fits(shapesOf(call), theirs)),
        `${kind}: ${JSON.stringify(shapesOf(call))}`,
      ).toBe(true)
      kinds.add(kind)
    }
    const all = ['initialize', 'status', 'step', 'terminate'].map((name) => `/${GRPO}${name}`)
    expect([...kinds]).toEqual(expect.arrayContaining([...all, '/chat/completions']))
  })

  it('posts the groups of every step in that step, each once and under an id of its own that was offered', () => {
    const steps = named(compiles[i]!, 'step')
    expect(steps).toHaveLength(STEPS * EXAMPLES)
    const ids = steps.map((call) => call.request['batch_id'] as number)
    expect(ids).toEqual([...new Set(ids)])
    const offered = compiles[i]!.filter(({ path }) => path.includes(GRPO)).flatMap(pending)
    for (const id of ids) expect(offered).toContain(id)
    for (const { request } of steps) expect(request['batch']).toHaveLength(ROLLOUTS)
    for (let step = 0; step < STEPS; step++) {
      const questions = steps
        .slice(step * EXAMPLES, (step + 1) * EXAMPLES)
        .map(({ request }) => JSON.stringify(promptOf(request)))
      expect(new Set(questions).size).toBe(EXAMPLES)
      const sampled = rolloutPrompts(compiles[i]!, step)
      for (const question of questions) expect(sampled).toContain(question)
    }
  })

  it('makes one update of every group whose rewards differ', () => {
    const records = recordsOf(compiles[i]!)
    expect(records).toHaveLength(STEPS * EXAMPLES)
    let updates = 0
    for (const record of records) {
      if (new Set(record.groups[0]!.rewards).size > 1) updates++
      expect(record.policy_version).toBe(updates)
      expect(record.rows_total).toBe(ROLLOUTS)
      expect(record.validation_score).not.toBeUndefined()
    }
  })

  it('trains on the tokens that were sampled wherever dspy sends the sampled text', () => {
    const sources = recordsOf(compiles[i]!).flatMap((record) => record.groups.flatMap((group) => group.sources))
    expect(sources).toContain('text')
    expect(sources).not.toContain('id') // Python's clients know no completion ids
    // null: nothing is trained of a group whose rewards are equal, and one that an earlier policy sampled has no such comparison
    for (const { logprob_gap_max: gap } of recordsOf(compiles[i]!)) expect(gap ?? 0).toBeLessThanOrEqual(1e-5)
  })

  it('ends with a program whose model is the trained policy', async () => {
    expect(answer.models[i]).toBe(`openai/arbor:${jobOf(compiles[i]!)}`)
    const { data } = (await (await fetch(`${server.baseUrl}models`)).json()) as { data: { id: string }[] }
    expect(data.map((model) => model.id)).toContain(jobOf(compiles[i]!))
  })
})

describe('dspy.GRPO.compile', () => {
  it('trains every group of every step, without the metrics and checkpoints that it does not know', () => {
    const calls = compiles[2]!
    expect(calls.filter(({ status }) => status !== 200)).toEqual([])
    expect(named(calls, 'step')).toHaveLength(STEPS * EXAMPLES)
    for (const { request } of named(calls, 'step')) expect(request).not.toHaveProperty('metrics')
    expect(named(calls, 'checkpoint')).toEqual([])
    expect(recordsOf(calls)).toHaveLength(STEPS * EXAMPLES)
    expect(answer.models[2]).toBe(`openai/arbor:${jobOf(calls)}`)
  })
})

it('no batch id is used twice, whatever the job', () => {
  const ids = compiles.map((calls) => calls.filter(({ path }) => path.includes(GRPO)).flatMap(pending))
  for (const [i, own] of ids.entries())
    for (const id of own) for (const earlier of ids.slice(0, i)) expect(earlier).not.toContain(id)
})

describe('what a person sees', () => {
  it('of options that cannot be: the field and what is allowed, before anything is sampled', () => {
    expect(answer.refused?.type).toBe('HTTPError')
    expect(answer.refused?.message).toMatch(/^422 Client Error: trainer_config\.loss_type: .*"dapo".* for url/)
    expect(answer.refused?.printed).toContain(
      'Error initializing reinforcement learning job: 422 Client Error: trainer_config.loss_type',
    )
  })

  it('of a job that fails on the way: an error with the reason instead of a notebook that waits', () => {
    expect(answer.failed?.type).toBe('AssertionError')
    expect(answer.failed?.message).toMatch(/^Failed to (get GRPO status|run a GRPO step): /)
    expect(answer.failed?.message).toMatch(/failed: step \d+: .*Lower the learning rate/)
  })

  it('of a prompt that is too long: the error that dspy has for it', () => {
    expect(answer.too_long).toMatch(/maximum context length is \d+ tokens/)
  })

  it('of launching and killing a model, also twice', () => {
    expect(answer.launches.map((line) => line.replace(MODEL_NAME, 'M'))).toEqual([
      'Inference server for model M launched successfully',
      'Inference server for model M launched successfully',
      'Inference killed successfully',
      'Inference killed successfully',
    ])
  })
})

const shapesOf = ({ request, answer: answered }: Call) => ({ request: shape(request), answer: shape(answered) })

/** Equal keys all the way down; where one of both has no object (null, a number) the other may have one. */
function fits(ours: unknown, theirs: unknown): boolean {
  if (typeof ours !== 'object' || typeof theirs !== 'object' || ours === null || theirs === null) return true
  const [a, b] = [Object.keys(ours), Object.keys(theirs)]
  if (Array.isArray(ours) && (a.length === 0 || b.length === 0)) return true
  return a.length === b.length && a.every((key) => key in theirs && fits(ours[key as never], theirs[key as never]))
}

/** The user's message of a posted group. */
function promptOf(request: Record<string, unknown>): unknown {
  return (request['batch'] as { messages: { content: string }[] }[])[0]!.messages.at(-1)!.content
}

/** The user's messages that were asked between the two looks at the status that frame step `step`'s rollouts. */
function rolloutPrompts(calls: readonly RecordedRequest[], step: number): string[] {
  const at = calls.flatMap(({ path }, i) => (path.endsWith(`${GRPO}status`) ? [i] : []))
  const asked = calls.slice(at[2 * step]!, at[2 * step + 1]!).filter(({ path }) => path.endsWith('/chat/completions'))
  return asked.map(({ request }) => JSON.stringify((request['messages'] as { content: string }[]).at(-1)!.content))
}
