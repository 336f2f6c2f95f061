// What the server's tests share: a codec of bytes, an app over the fake engine, and short ways to call it.

import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Completion, Engine, GenerateControl, GenerateRequest, TrainStats } from '../engine/engine'
import { FakeEngine } from '../engine/fake-engine'
import type { GRPOStatus } from '../protocol'
import { createApp } from './app'
import { CompletionStore } from './completion-store'
import { Constraints } from './constrain/constraints'
import { EarlierRuns } from './earlier-runs'
import { FineTuning } from './fine-tuning'
import { Jobs } from './jobs'
import { SavedPolicies } from './saved-policies'
import type { Services, TextCodec } from './services'

const START = 256
const END = 257
export const MODEL = 'mock/tiny'

/** ChatML over bytes: a token a byte, and two special tokens. */
export const byteCodec: TextCodec = {
  encode: (text) =>
    text
      .split(/(<\|start\|>|<\|end\|>)/)
      .flatMap((part) => (part === '<|start|>' ? [START] : part === '<|end|>' ? [END] : [...Buffer.from(part)])),
  decode: (tokens) => Buffer.from(tokens.filter((token) => token < START)).toString('utf8'),
  stream: () => {
    const held: number[] = []
    const take = (last: boolean): string => {
      const text = byteCodec.decode(held)
      if (text.endsWith('\uFFFD') && !last) return ''
      held.length = 0
      return text
    }
    return {
      push: (token) => {
        held.push(token)
        return take(false)
      },
      flush: () => take(true),
    }
  },
  render: (messages, { addGenerationPrompt }) =>
    messages.map(({ role, content }) => `<|start|>${role}\n${content}<|end|>\n`).join('') +
    (addGenerationPrompt ? '<|start|>assistant\n' : ''),
  stopTokenIds: [END],
  bytes: () => Array.from({ length: 258 }, (_, token) => (token < START ? String.fromCharCode(token) : null)),
}

export interface TestApp {
  readonly services: Services
  readonly storage: string
  readonly fetch: (request: Request) => Promise<Response>
  get(path: string): Promise<Response>
  post(path: string, body: unknown): Promise<Response>
  /** Posts and answers the JSON body of a 200. Throws the body of anything else. */
  call<T = Record<string, unknown>>(path: string, body: unknown): Promise<T>
}

export async function testApp(
  options: { engine?: Engine; storage?: string; adapters?: ReadonlyMap<string, string>; autosaveMs?: number } = {},
): Promise<TestApp> {
  const engine = options.engine ?? new FakeEngine()
  const storage = options.storage ?? mkdtempSync(join(tmpdir(), 'arbor-server-'))
  const model = await engine.load({ name: MODEL, kind: 'folder', path: '/nowhere' })
  const completions = new CompletionStore()
  const common = { engine, model, modelNames: [MODEL], codec: byteCodec, completions }
  const setup = { ...common, storage, version: '0.0.0' }
  const saved = new SavedPolicies({ ...setup, ...(options.adapters ? { adapters: options.adapters } : {}) })
  const fineTuning = new FineTuning({ ...setup, saved })
  const services: Services = {
    ...common,
    constraints: new Constraints(byteCodec, model),
    jobs: new Jobs({ ...setup, ...options, engine, storage, fineTuning, saved }),
    fineTuning,
    saved,
    earlier: new EarlierRuns(storage),
  }
  const fetch = createApp(services)
  const url = (path: string) => `http://localhost${path}`
  const post = (path: string, body: unknown) =>
    fetch(new Request(url(path), { method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body) }))
  return {
    services,
    storage,
    fetch,
    get: (path) => fetch(new Request(url(path))),
    post,
    call: async <T>(path: string, body: unknown) => {
      const response = await post(path, body)
      const json = (await response.json()) as T
      if (response.status !== 200) throw new Error(`${path}: ${response.status} ${JSON.stringify(json)}`)
      return json
    },
  }
}

/** A fake engine that answers every prompt with `reply`, a byte a token. */
export class ScriptedEngine extends FakeEngine {
  readonly requests: GenerateRequest[] = []
  aborted = 0
  constructor(reply: string, contextLength = 2048) {
    super({ script: () => [...byteCodec.encode(reply), END], info: { contextLength } })
  }

  override async generate(request: GenerateRequest, control: GenerateControl = {}): Promise<Completion[]> {
    this.requests.push(request)
    const completions = await super.generate(request, control)
    this.aborted += completions.filter((completion) => completion.finishReason === 'abort').length
    return completions
  }
}

/** Fails at the first update. */
export class FaultyEngine extends FakeEngine {
  override trainStep(): Promise<TrainStats> {
    return Promise.reject(new Error('the device is gone'))
  }
}

export const TRAINER_CONFIG = {
  num_generations: 4,
  learning_rate: 1e-3,
  lr_scheduler_type: 'constant',
  loss_type: 'dapo',
  beta: 0,
  scale_rewards: true,
  lora_config: { r: 4, lora_alpha: 8, target_modules: 'all-linear', lora_dropout: 0 },
} as const

export function initialize(app: TestApp, body: object = {}): Promise<GRPOStatus> {
  return app.call('/v1/fine_tuning/grpo/initialize', { model: MODEL, trainer_config: TRAINER_CONFIG, ...body })
}

/** A sampled group: `n` completions of one question, with rewards 1, 0, 1, 0 … and their ids. */
export async function sampledGroup(app: TestApp, model: string, question: string, n = 4) {
  const messages = [{ role: 'user', content: question }]
  const body = { model, messages, n, seed: question.length, max_tokens: 12 }
  const answer = await app.call<{ id: string; choices: { index: number; message: { content: string } }[] }>(
    '/v1/chat/completions',
    body,
  )
  return answer.choices.map(({ index, message }) => ({
    messages,
    completion: { role: 'assistant', content: message.content },
    reward: (index + 1) % 2,
    completion_id: `${answer.id}#${index}`,
  }))
}
