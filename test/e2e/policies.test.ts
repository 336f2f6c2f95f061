// Three LoRA jobs on one base at the same time, over HTTP: their rollouts decode in one batch with the base's and a checkpoint's, each
// answers as it does alone, and each is trained to the bits that it reaches in a server of its own.

import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { LocalEngine } from '../../src/engine/local-engine'
import type { GRPOStatus } from '../../src/protocol'
import { type RunningServer, startServer } from '../../src/server/main'
import { adapterBytes, compile, exampleOf, freshFolder, MODEL, ROOT, runFolder, serve, vowels, whyNot } from './tiny'

/** Other in shape, rate and reward, so that no two policies are alike. */
const JOBS = [
  { r: 4, target_modules: 'all-linear', rate: 0.02, letter: 'a' },
  { r: 8, target_modules: ['q_proj', 'v_proj'], rate: 0.03, letter: 'e' },
  { r: 2, target_modules: ['gate_proj', 'up_proj', 'down_proj'], rate: 0.02, letter: 'o' },
] as const
type Job = (typeof JOBS)[number]

interface Chat {
  readonly id: string
  readonly choices: { readonly index: number; readonly message: { readonly content: string }; readonly logprobs: unknown }[]
}

class Served {
  private constructor(
    private readonly server: RunningServer,
    readonly engine: LocalEngine,
    readonly storage: string,
  ) {}

  static async start(): Promise<Served> {
    const engine = new LocalEngine({ device: 'cpu' })
    const storage = freshFolder()
    return new Served(await startServer({ model: MODEL, port: 0, storage, version: '0.0.0', engine }), engine, storage)
  }

  async post<Answer>(path: string, body: object): Promise<Answer> {
    const response = await fetch(this.server.baseUrl + path, { method: 'POST', body: JSON.stringify(body) })
    const json = (await response.json()) as Answer
    if (!response.ok) throw new Error(`${path}: ${response.status} ${JSON.stringify(json)}`)
    return json
  }

  chat(model: string, content: string, options: object): Promise<Chat> {
    return this.post<Chat>('chat/completions', { model, messages: [{ role: 'user', content }], max_tokens: 24, ...options })
  }

  /** Three steps of two groups, and a checkpoint after the first. */
  async train({ r, target_modules, rate, letter }: Job): Promise<string> {
    const lora_config = { r, lora_alpha: 2 * r, target_modules, lora_dropout: 0 }
    const config = {
      num_generations: 4,
      groups_per_step: 2,
      learning_rate: rate,
      lr_scheduler_type: 'constant',
      loss_type: 'dapo',
    }
    const trainer_config = { ...config, beta: 0, mask_truncated_completions: false, lora_config, seed: r }
    const started = await this.post<GRPOStatus>('fine_tuning/grpo/initialize', { model: MODEL, trainer_config })
    const { job_id } = started
    let pending = started.pending_batch_ids
    for (let step = 0; step < 3; step++) {
      const batch = await Promise.all([0, 1].map((group) => this.group(job_id, `${letter} ${step} ${group}`, letter)))
      const body = { job_id, model: job_id, batch_id: pending[0], batch }
      pending = (await this.post<GRPOStatus>('fine_tuning/grpo/step', body)).pending_batch_ids
      if (step === 0)
        await this.post('fine_tuning/grpo/checkpoint', { job_id, checkpoint_name: 'early', metadata: { score: 50 } })
    }
    await this.post('fine_tuning/grpo/terminate', { job_id })
    return job_id
  }

  private async group(model: string, question: string, letter: string) {
    const { id, choices } = await this.chat(model, question, { n: 4, seed: question.length * 7, max_tokens: 12 })
    return choices.map(({ index, message }) => ({
      ...{ messages: [{ role: 'user', content: question }], completion: { role: 'assistant', content: message.content } },
      ...{ reward: message.content.split(letter).length - index / 100, completion_id: `${id}#${index}` },
    }))
  }

  /** Texts and logprobs of a few sampled and one greedy answer. */
  async answers(model: string): Promise<string> {
    const asked = [{ seed: 11, n: 3 }, { seed: 5 }, { temperature: 0 }]
    const got = await Promise.all(
      asked.map((options) => this.chat(model, 'who are you?', { logprobs: true, top_logprobs: 3, ...options })),
    )
    return JSON.stringify(got.map(({ choices }) => choices))
  }

  adapter(job: string): Buffer {
    return adapterBytes(join(runFolder(this.storage, job), 'checkpoints/checkpoint_final'))
  }

  close(): Promise<void> {
    return this.server.close()
  }
}

let missing: string | null
let crowd: Served
let jobs: string[]
beforeAll(async () => {
  missing = await whyNot()
  if (missing !== null) return
  crowd = await Served.start()
  jobs = await Promise.all(JOBS.map((job) => crowd.train(job)))
}, 120_000)
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))
afterAll(() => crowd?.close())

describe('several LoRA jobs on one base', () => {
  it('decode in one batch with the base and a checkpoint, and each answers as it does alone', async () => {
    const names = [MODEL, ...jobs, `${jobs[0]}@best`]
    const alone: string[] = []
    for (const name of names) alone.push(await crowd.answers(name))
    const together = await Promise.all(names.map((name) => crowd.answers(name)))
    expect(together).toEqual(alone)
    expect(new Set(alone).size).toBe(names.length)
    expect((await crowd.engine.status()).policiesAtOnce).toBe(names.length)
  })

  it('are each trained to the bits that they reach alone', async () => {
    for (const [i, job] of JOBS.entries()) {
      const own = await Served.start()
      try {
        const id = await own.train(job)
        expect(own.adapter(id).equals(crowd.adapter(jobs[i]!))).toBe(true)
        expect((await own.engine.status()).policiesAtOnce).toBe(1)
      } finally {
        await own.close()
      }
    }
  }, 120_000)
})

describe('serve --adapter', () => {
  const start = (dir: string, name = 'mine') => {
    const adapters = new Map([[name, dir]])
    const engine = new LocalEngine({ device: 'cpu' })
    return startServer({ model: MODEL, port: 0, storage: freshFolder(), version: '0.0.0', engine, adapters })
  }

  it('a checkpoint elsewhere answers under the name that it was given, as its job does', async () => {
    const server = await start(join(runFolder(crowd.storage, jobs[1]!), 'checkpoints/checkpoint_final'))
    try {
      const body = { messages: [{ role: 'user', content: 'who are you?' }], max_tokens: 24, temperature: 0 }
      const ask = { method: 'POST', body: JSON.stringify({ ...body, model: 'mine' }) }
      const mine = (await (await fetch(`${server.baseUrl}chat/completions`, ask)).json()) as Chat
      const job = await crowd.post<Chat>('chat/completions', { ...body, model: jobs[1] })
      expect(mine.choices).toEqual(job.choices)
      const { data } = (await (await fetch(`${server.baseUrl}models`)).json()) as { data: { id: string }[] }
      expect(data.map(({ id }) => id)).toEqual([MODEL, 'mine'])
    } finally {
      await server.close()
    }
  })

  it("another model's adapter, and the base's own name, end the start with a reason", async () => {
    await expect(start(join(ROOT, 'test/golden/engine/llama/adapter'))).rejects.toThrow(
      /another model's|has no place in this model/,
    )
    await expect(start(freshFolder())).rejects.toThrow(/neither an adapter .* nor a model/)
    await expect(start(freshFolder(), 'tiny-chat')).rejects.toThrow(/"tiny-chat" is the base model's own name/)
  })
})

describe('restoreBest', () => {
  it('ends with the policy that validated best, to the bit; the last one stays addressable', async () => {
    const storagePath = freshFolder()
    const server = await serve({ storagePath })
    try {
      // Validation is by decree, so that the best is not the last.
      const scores = [10, 90, 40, 20]
      let asked = 0
      const metric: typeof vowels = (example, prediction) =>
        example['answer'] === 'valid' ? scores[asked++]! / 100 : vowels(example, prediction)
      const options = { metric, restoreBest: true, numTrainSteps: 3, numStepsForVal: 1 }
      const { compiler, program } = await compile(server, options, { valset: [exampleOf('one', 'valid')] })
      const { jobId, notes } = compiler.run!
      const folder = join(runFolder(storagePath, jobId), 'checkpoints')
      const [final, best, last] = ['checkpoint_final', 'model_checkpoint_best', 'model_checkpoint_last'].map((name) =>
        adapterBytes(join(folder, name)),
      )
      expect(notes.at(-1)).toBe('Restored model_checkpoint_best, which validated best (90 %).')
      expect(final!.equals(best!)).toBe(true)
      expect(final!.equals(last!)).toBe(false)
      const ask = async (model: string) => {
        const body = { model, messages: [{ role: 'user', content: 'one' }], temperature: 0, max_tokens: 12 }
        const response = await fetch(`${server.baseUrl}chat/completions`, { method: 'POST', body: JSON.stringify(body) })
        return ((await response.json()) as Chat).choices[0]!.message.content
      }
      expect(program.answer.lm!.model).toBe(`openai/arbor:${jobId}`)
      expect(await ask(jobId)).toBe(await ask(`${jobId}@best`))
      expect(await ask(jobId)).not.toBe(await ask(`${jobId}@model_checkpoint_last`))
    } finally {
      await server.close()
    }
  }, 120_000)
})
