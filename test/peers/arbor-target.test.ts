// Our client trains on Arbor's own server: arbor-ai's routes, request models, checks and batch numbering, with its GPUs and processes stood in for.

import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { LMError, OptionError, ProtocolError } from '../../src/errors'
import { ArborGRPO, type ArborGRPOOptions, ArborProvider, type ServerInfo } from '../../src/optimize'
import { ChainOfThought, ChatAdapter, context, Example, LM, type Loose } from '../../src/program'
import { LoraConfigSchema, type TrainKwargs } from '../../src/protocol'
import { failureOf, freshFolder, ROOT, serve, whyNot } from '../e2e/tiny'
import { recordedCalls, shape } from '../golden/arbor/shape'
import { MODEL_NAME, testRows } from './data'
import { noPeers, PYTHON, SLOW } from './python'
import { type RecordedRequest, type RecordingProxy, recordingProxy } from './recording-proxy'

const STEPS = 3
const EXAMPLES = 2
const ROLLOUTS = 4
const lora_config = LoraConfigSchema.parse({
  r: 8,
  lora_alpha: 16,
  target_modules: 'all-linear',
  lora_dropout: 0.05,
  bias: 'none',
})

let missing: string | null
let backend: ServerInfo
let arbor: ChildProcess
let proxy: RecordingProxy
let rows: Example[]
beforeAll(async () => {
  missing = noPeers() ?? (await whyNot())
  if (missing !== null) return
  backend = await serve({ model: MODEL_NAME })
  const started = await startArbor(backend.baseUrl)
  arbor = started.child
  proxy = await recordingProxy(started.baseUrl)
  rows = (await testRows(10)).map((row) => new Example(row).withInputs('question'))
}, SLOW)
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))
afterAll(async () => {
  arbor?.stdin?.end()
  proxy?.close()
  await backend?.close()
})

/** Arbor as a process; it ends with its standard input. */
async function startArbor(backendUrl: string): Promise<{ child: ChildProcess; baseUrl: string }> {
  const env = { ...process.env, HF_HUB_OFFLINE: '1', NO_PROXY: '127.0.0.1', PYTHONNOUSERSITE: '1', DSPY_CACHEDIR: freshFolder() }
  const args = [join(ROOT, 'test/peers/arbor_server.py'), backendUrl, freshFolder()]
  const child = spawn(PYTHON, args, { cwd: ROOT, env, stdio: ['pipe', 'pipe', 'pipe'] })
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text))
  const line = await new Promise<string>((resolve, reject) => {
    child.stdout.setEncoding('utf8').on('data', (text: string) => text.startsWith('{') && resolve(text))
    child.once('exit', () => reject(new Error(`Arbor ended: ${said.slice(-2000)}`)))
  })
  return { child, baseUrl: (JSON.parse(line) as { base_url: string }).base_url }
}

const right = (example: Loose, prediction: Loose) =>
  String(prediction['answer']).toLowerCase().includes(String(example['answer']).toLowerCase())

async function compile(options: Partial<ArborGRPOOptions> = {}, lmOptions: object = {}) {
  const from = proxy.calls.length
  const lm = new LM(`openai/arbor:${MODEL_NAME}`, {
    provider: new ArborProvider(),
    apiBase: proxy.baseUrl,
    temperature: 1,
    maxTokens: 96,
    numRetries: 0,
    ...lmOptions,
  })
  const { trainKwargs, ...rest } = options
  const compiler = new ArborGRPO({
    metric: right,
    target: 'arbor',
    numDspyExamplesPerGrpoStep: EXAMPLES,
    numRolloutsPerGrpoStep: ROLLOUTS,
    numTrainSteps: STEPS,
    numStepsForVal: STEPS,
    trainKwargs: { lora_config, ...trainKwargs },
    ...rest,
  })
  const trained = await context({ lm, adapter: new ChatAdapter() }, () =>
    compiler.compile(new ChainOfThought('question -> answer'), { trainset: rows.slice(0, 8), valset: rows.slice(8) }),
  )
  return { compiler, trained, calls: proxy.calls.slice(from) }
}

const said = async (options: Partial<ArborGRPOOptions>) => {
  const from = proxy.calls.length
  const error = await failureOf(compile(options))
  return { error, calls: proxy.calls.slice(from) }
}
const named = (calls: readonly RecordedRequest[], name: string) => calls.filter(({ path }) => path.endsWith(`/grpo/${name}`))
const postArbor = (path: string, body: object) =>
  fetch(`${proxy.baseUrl}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })

describe("compile with target: 'arbor'", () => {
  let run: Awaited<ReturnType<typeof compile>>
  const checkpoint = freshFolder()
  beforeAll(async () => {
    if (missing === null) run = await compile({ checkpoint })
  }, SLOW)

  it('is answered 200 in every call, and sends the keys that arbor-ai sends', () => {
    expect(run.calls.filter(({ status }) => status !== 200)).toEqual([])
    const recorded = recordedCalls()
    for (const name of ['initialize', 'status', 'step', 'checkpoint', 'terminate']) {
      const theirs = recorded.find(({ path }) => path.endsWith(`/grpo/${name}`))!.request
      const ours = named(run.calls, name)
      expect(ours.length, name).toBeGreaterThan(0)
      for (const { request } of ours) expect(keysOf(request), name).toEqual(keysOf(theirs))
    }
    const lora = (run.calls[0]!.request['trainer_config'] as { lora_config: object }).lora_config
    expect(lora).toEqual({
      r: 8,
      lora_alpha: 16,
      lora_dropout: 0.05,
      target_modules: expect.arrayContaining(['q_proj', 'down_proj']),
    })
  })

  it('asks for one completion a request, and nothing that is ours', () => {
    const chats = run.calls.filter(({ path }) => path.endsWith('/chat/completions'))
    expect(chats.length).toBe(STEPS * EXAMPLES * ROLLOUTS + 2 * 2) // rollouts, and two validations of two
    for (const { request } of chats) for (const key of ['seeds', 'n', 'completion_ids']) expect(request).not.toHaveProperty(key)
  })

  it('posts every group under an id of its own that Arbor asked for, whole', () => {
    const steps = named(run.calls, 'step')
    expect(steps.map(({ request }) => request['batch_id'])).toEqual(Array.from({ length: STEPS * EXAMPLES }, (_, i) => i))
    for (const { request } of steps) {
      const batch = request['batch'] as object[]
      expect(batch).toHaveLength(ROLLOUTS)
      for (const sample of batch) expect(Object.keys(sample)).toEqual(['messages', 'completion', 'reward'])
    }
  })

  it('keeps records with rewards and advantages, says what stays on the server, and ends with the trained model', () => {
    const { records, notes, validation, checkpoints } = run.compiler.run!
    expect(records.map(({ step, policy_version }) => [step, policy_version])).toEqual(
      [1, 2, 3].map((step) => [step, step * EXAMPLES]),
    )
    for (const { groups, reward } of records) {
      expect(groups).toHaveLength(EXAMPLES)
      for (const { rewards, advantages } of groups) {
        expect(advantages.reduce((sum, value) => sum + value, 0)).toBeCloseTo(0)
        expect(new Set(advantages).size).toBe(new Set(rewards).size)
      }
      expect(reward).toBeGreaterThanOrEqual(-1)
    }
    expect(validation.map(({ step }) => step)).toEqual([0, STEPS])
    expect(checkpoints['model_checkpoint_last']).toBe('/cluster/checkpoints/model_checkpoint_last')
    expect(notes.join('\n')).toContain("model_checkpoint_last lies on the server's machine")
    expect(notes.join('\n')).toContain('max_seq_len is not given')
    expect(run.trained.predictors()[0]!.lm!.model).toMatch(/^openai\/arbor:grpo:arbor-tiny:calm-fox:\d{8}$/)
  })
})

describe('what a real Arbor would refuse', () => {
  const refused: [string, TrainKwargs, RegExp][] = [
    ['an option of ours', { epsilon_high: 0.3 }, /doesn't know trainKwargs\.epsilon_high/],
    ['a loss of ours', { loss_type: 'cispo' }, /loss_type is "cispo"; a real Arbor has grpo, bnpo, dr_grpo, dapo/],
    ['a scale of ours', { scale_rewards: 'batch' }, /scale_rewards is "batch"/],
    ['rows that no group divides', { per_device_train_batch_size: 3 }, /a multiple of the group \(4\).*take a multiple of 4/],
    ['more parts than rollouts', { gradient_accumulation_steps: 8 }, /to be at least 8/],
    ['fewer updates than groups', { max_steps: 3 }, /3 steps of 2 groups are 6 updates.*at least 6/],
    ['half an alpha', { lora_config: { ...lora_config, lora_alpha: 0.5 } }, /lora_alpha is 0\.5/],
  ]
  it.each(refused)('%s is refused here, before anything is asked', async (_, trainKwargs, words) => {
    const { error, calls } = await said({ trainKwargs })
    expect(error).toBeInstanceOf(OptionError)
    expect(error.message).toMatch(words)
    expect(calls).toEqual([])
  })

  it('is refused by it: the checks above are its own', async () => {
    const [first] = proxy.calls
    const initialize = async (trainer_config: object) => {
      const body = { ...first!.request, trainer_config: { ...(first!.request['trainer_config'] as object), ...trainer_config } }
      const response = await postArbor('fine_tuning/grpo/initialize', body)
      return `${response.status} ${await response.text()}`
    }
    expect(await initialize({ epsilon_high: 0.3 })).toMatch(/^422 .*extra_forbidden/)
    expect(await initialize({ groups_per_step: 2 })).toMatch(/^422 .*extra_forbidden/)
    expect(await initialize({ lora_config })).toMatch(/^422/)
    expect(await initialize({ scale_rewards: 'batch' })).toMatch(/^422/)
    expect(await initialize({ per_device_train_batch_size: 3 })).toMatch(/^400 .*must be evenly divisible/)
    const { job_id } = named(proxy.calls, 'step')[0]!.request
    const batch = (named(proxy.calls, 'step')[0]!.request['batch'] as object[]).slice(1)
    const short = await postArbor('fine_tuning/grpo/step', { job_id, model: job_id, batch_id: 0, batch })
    expect(`${short.status} ${await short.text()}`).toMatch(/^400 .*Expected 4 samples in the group, received 3/)
    const extra = await postArbor('fine_tuning/grpo/step', { job_id, model: job_id, batch_id: 0, batch, groups: [] })
    expect(extra.status).toBe(422)
  })

  it('on our own terms (no target) is an error that says what to do', async () => {
    const { error } = await said({ target: 'arbor-nb' })
    expect(error).toBeInstanceOf(ProtocolError)
    expect(error.message).toMatch(/is a real Arbor, it seems: give ArborGRPO target: 'arbor'.*422/)
  })
})

describe('what a real Arbor does badly', () => {
  it('a call that its vLLM refused (200, null) is an error with words', async () => {
    const error = await failureOf(compile({ numTrainSteps: 1 }, { maxTokens: 96, stop: Array.from({ length: 17 }, String) }))
    expect(error).toBeInstanceOf(LMError)
    expect(error.message).toMatch(
      /status 502: the service answered without a completion; a real Arbor does so when its vLLM failed/,
    )
  })
})

/** Keys, down to those of the configurations. */
function keysOf(request: Record<string, unknown>): unknown {
  const one = shape({ ...request, batch: request['batch'] ?? null, metrics: null }) as Record<string, unknown>
  const config = one['trainer_config'] as Record<string, unknown> | undefined
  return sorted(config ? { ...one, trainer_config: { ...config, lora_config: 'value' } } : one)
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted)
  if (typeof value !== 'object' || value === null) return value
  const entries = Object.entries(value).map(([key, inner]) => [key, sorted(inner)] as const)
  return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)))
}
