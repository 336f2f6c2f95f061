// Policies as models: base, job, checkpoint, best and adapters by name; a checkpoint restored on request, or a new job's beginning.

import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { FakeEngine } from '../engine/fake-engine'
import type { GRPOStatus } from '../protocol'
import { initialize, MODEL, sampledGroup, type TestApp, testApp } from './fixture'
import { RunFolder } from './run-folder'

const grpo = (name: string) => `/v1/fine_tuning/grpo/${name}`
const answer = async (response: Response) => ({ status: response.status, body: await response.json() })

async function step(app: TestApp, job_id: string, question: string): Promise<void> {
  const { pending_batch_ids } = await app.call<GRPOStatus>(grpo('status'), { job_id })
  const batch = await sampledGroup(app, job_id, question)
  await app.call(grpo('step'), { job_id, model: job_id, batch_id: pending_batch_ids[0], batch })
  await app.services.jobs.get(job_id).trained()
}

const save = (app: TestApp, job_id: string, checkpoint_name: string, score?: number) =>
  app.call<GRPOStatus>(grpo('checkpoint'), { job_id, checkpoint_name, ...(score === undefined ? {} : { metadata: { score } }) })

/** A job with two scored checkpoints, of versions 1 and 2; its policy is at version 3. */
async function jobWithCheckpoints(app: TestApp): Promise<string> {
  const { job_id } = await initialize(app)
  for (const [question, score] of [['a', 80] as const, ['b', 60] as const]) {
    await step(app, job_id, question)
    await save(app, job_id, `after-${question}`, score)
  }
  await step(app, job_id, 'c')
  return job_id
}

const ask = (app: TestApp, model: string) =>
  app.post('/v1/chat/completions', { model, messages: [{ role: 'user', content: 'hi' }], seed: 1, max_tokens: 4 })

/** The version of the policy that answered: the fake engine's logprobs tell it. */
async function versionOf(app: TestApp, model: string): Promise<number> {
  const { status, body } = await answer(await ask(app, model))
  if (status !== 200) throw new Error(JSON.stringify(body))
  return app.services.completions.get(`${(body as { id: string }).id}#0`)!.policyVersion
}

const listed = async (app: TestApp): Promise<string[]> =>
  ((await (await app.get('/v1/models')).json()) as { data: { id: string }[] }).data.map(({ id }) => id)

afterEach(() => vi.restoreAllMocks())

describe('policies as models', () => {
  it('base, job, checkpoint, best and last answer under their names and are listed', async () => {
    const app = await testApp()
    const job = await jobWithCheckpoints(app)
    const names = [MODEL, job, `${job}@after-a`, `${job}@after-b`, `${job}@best`, `openai/arbor:${job}@last`]
    const versions = []
    for (const name of names) versions.push(await versionOf(app, name))
    expect(versions).toEqual([0, 3, 1, 2, 1, 2])
    expect(await listed(app)).toEqual([MODEL, job, ...['after-a', 'after-b', 'last', 'best'].map((name) => `${job}@${name}`)])
    for (const name of names) expect((await app.get(`/v1/models/${encodeURIComponent(name)}`)).status).toBe(200)
    expect((await app.get(`/v1/models/${job}@worst`)).status).toBe(404)
  })

  it('a checkpoint is opened once, and again when it was written anew', async () => {
    const engine = new FakeEngine()
    const app = await testApp({ engine })
    const job = await jobWithCheckpoints(app)
    await Promise.all([1, 2, 3].map(() => versionOf(app, `${job}@best`)))
    const opened = () => engine.calls.filter(({ method }) => method === 'openSaved').length
    expect(opened()).toBe(1)
    await save(app, job, 'after-a', 95)
    expect(await versionOf(app, `${job}@best`)).toBe(3)
    expect(opened()).toBe(2)
  })

  it('policies that nobody asked of late make room for others', async () => {
    const engine = new FakeEngine({ info: { parameters: 1e9 } })
    const app = await testApp({ engine })
    const { job_id: job } = await initialize(app)
    for (let i = 0; i < 10; i++) await save(app, job, `c${i}`)
    const now = Date.now()
    const clock = vi.spyOn(Date, 'now')
    for (let i = 0; i < 10; i++) {
      clock.mockReturnValue(now + i * 11_000)
      await versionOf(app, `${job}@c${i}`)
    }
    const open = (await engine.status()).policies.map(({ name }) => name.replace(/ of .*/, ''))
    expect(open).toEqual([job, ...Array.from({ length: 8 }, (_, i) => `${job}@c${i + 2}`)])
    expect(await versionOf(app, `${job}@c0`)).toBe(0) // it comes back when asked
  })

  it('says what there is when a name leads nowhere', async () => {
    const app = await testApp()
    const job = await jobWithCheckpoints(app)
    expect(await answer(await ask(app, `${job}@worst`))).toMatchObject({
      status: 404,
      body: {
        error: { message: expect.stringMatching(/no checkpoint "worst".*after-a, after-b, last, best/), code: 'model_not_found' },
      },
    })
    for (const name of ['grpo:mock:gone:20200101@best', 'nobody@best', 'grpo:../../x:y:20200101', 'ftjob:a:b:20200101@last'])
      expect((await ask(app, name)).status, name).toBe(404)
  })

  it('a job of an earlier server goes on answering, as its last checkpoint; on another base it does not', async () => {
    const before = await testApp()
    const job = await jobWithCheckpoints(before)
    await before.call(grpo('terminate'), { job_id: job })
    const after = await testApp({ storage: before.storage })
    expect(await Promise.all([job, `${job}@best`].map((name) => versionOf(after, name)))).toEqual([3, 1])
    expect(await listed(after)).toContain(job)
    const folder = RunFolder.at(before.storage, job)
    const config = folder.config() as Record<string, unknown>
    folder.create({ config: { ...config, base: 'other/model', model: 'other/model' }, environment: {} })
    const elsewhere = await testApp({ storage: before.storage })
    expect(await answer(await ask(elsewhere, `${job}@best`))).toMatchObject({
      status: 404,
      body: {
        error: {
          message: expect.stringMatching(/was trained on "other\/model"; this server has "mock\/tiny".*--model other\/model/),
        },
      },
    })
    expect(await listed(elsewhere)).toEqual([MODEL])
  })

  it('a cancelled job answers no more, its checkpoints do', async () => {
    const app = await testApp()
    const job = await jobWithCheckpoints(app)
    await app.call(grpo('cancel'), { job_id: job })
    expect((await ask(app, job)).status).toBe(404)
    expect(await versionOf(app, `${job}@best`)).toBe(1)
  })

  it('an adapter that was given a name is a model like any other', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'arbor-adapter-'))
    writeFileSync(join(folder, 'fake-policy.json'), JSON.stringify({ policyVersion: 7 }))
    const app = await testApp({ adapters: new Map([['mine', folder]]) })
    expect(await versionOf(app, 'arbor:mine')).toBe(7)
    expect(await listed(app)).toEqual([MODEL, 'mine'])
    expect((await app.post('/v1/chat/launch', { model: 'mine' })).status).toBe(200)
  })

  it("OpenAI's list of checkpoints names each as a model, newest first, page by page", async () => {
    const app = await testApp()
    const job = await jobWithCheckpoints(app)
    const page = async (query: string) => (await app.get(`/v1/fine_tuning/jobs/${job}/checkpoints${query}`)).json()
    const first = (await page('?limit=1')) as { data: { id: string }[] }
    expect(first).toMatchObject({
      has_more: true,
      data: [{ fine_tuned_model_checkpoint: `${job}@after-b`, step_number: 2, metrics: { step: 2, score: 60 } }],
    })
    expect(await page(`?after=${first.data[0]!.id}`)).toMatchObject({
      has_more: false,
      data: [{ object: 'fine_tuning.job.checkpoint', fine_tuned_model_checkpoint: `${job}@after-a` }],
    })
    expect((await app.get('/v1/fine_tuning/jobs/grpo:no:such:20200101/checkpoints')).status).toBe(404)
    expect((await app.get(`/v1/fine_tuning/jobs/${job}/checkpoints?limit=x`)).status).toBe(400)
  })
})

describe('a checkpoint restored', () => {
  it('is what the job answers with, trains on and is saved as', async () => {
    const app = await testApp()
    const job = await jobWithCheckpoints(app)
    const status = await app.call<GRPOStatus>(grpo('restore'), { job_id: job })
    expect(status).toMatchObject({ job_id: job, status: 'running', last_checkpoint: 'restored' })
    expect(status.checkpoints['restored']!.metadata).toEqual({ score: 80, restored_from: 'after-a' })
    expect(await versionOf(app, job)).toBe(1)
    await step(app, job, 'd')
    expect(await versionOf(app, job)).toBe(2)
    const records = RunFolder.at(app.storage, job).steps()
    expect(records.map(({ step, policy_version }) => [step, policy_version])).toEqual([
      [1, 1],
      [2, 2],
      [3, 3],
      [4, 2],
    ])
    expect(await versionOf(app, `${job}@best`)).toBe(1)
  })

  it('serves after the end as well, and a resumed run goes on from it', async () => {
    const app = await testApp()
    const job = await jobWithCheckpoints(app)
    await app.call(grpo('terminate'), { job_id: job })
    await app.call(grpo('restore'), { job_id: job, checkpoint_name: 'after-b' })
    expect(await versionOf(app, job)).toBe(2)
    const again = await testApp({ storage: app.storage })
    expect(await versionOf(again, job)).toBe(2)
    await initialize(again, { resume_from: job })
    expect(await versionOf(again, job)).toBe(2)
  })

  it('what the policy sampled before it went back counts as of no version, though the numbers come again', async () => {
    const app = await testApp()
    const job = await jobWithCheckpoints(app)
    const id = ((await (await ask(app, job)).json()) as { id: string }).id
    expect(app.services.completions.get(`${id}#0`)!.policyVersion).toBe(3)
    await app.call(grpo('restore'), { job_id: job, checkpoint_name: 'after-b' })
    expect(app.services.completions.get(`${id}#0`)!.policyVersion).toBe(-1)
    await step(app, job, 'd')
    expect(await versionOf(app, job)).toBe(3)
  })

  it('changes nothing when there is no such checkpoint, or it can not be read', async () => {
    const app = await testApp()
    const job = await jobWithCheckpoints(app)
    expect(await answer(await app.post(grpo('restore'), { job_id: job, checkpoint_name: 'worst' }))).toMatchObject({
      status: 404,
      body: { error: { message: expect.stringContaining('no checkpoint "worst"'), code: 'checkpoint_not_found' } },
    })
    writeFileSync(join(RunFolder.at(app.storage, job).path, 'checkpoints', 'after-a', 'fake-policy.json'), 'torn')
    expect((await app.post(grpo('restore'), { job_id: job, checkpoint_name: 'after-a' })).status).toBe(500)
    expect(await versionOf(app, job)).toBe(3)
    expect(await app.call(grpo('status'), { job_id: job })).toMatchObject({ status: 'running' })
    expect((await app.post(grpo('restore'), { job_id: job, checkpoint_name: '../x' })).status).toBe(422)
  })
})

describe('a job that begins with a saved policy', () => {
  it('takes its weights and an optimizer of its own', async () => {
    const engine = new FakeEngine()
    const app = await testApp({ engine })
    const job = await jobWithCheckpoints(app)
    const { job_id: other } = await initialize(app, { model: `arbor:${job}@best` })
    const opened = engine.calls.find((call) => call.method === 'openPolicy' && call.policy === other)
    const checkpoint = join(RunFolder.at(app.storage, job).path, 'checkpoints', 'after-a')
    expect(opened).toMatchObject({ spec: { checkpoint, freshOptimizer: true } })
    expect(await versionOf(app, other)).toBe(0)
    expect(RunFolder.at(app.storage, other).config()).toMatchObject({ base: MODEL, model: `arbor:${job}@best` })
    expect(await answer(await app.post(grpo('initialize'), { model: job, trainer_config: {} }))).toMatchObject({
      status: 400,
      body: { error: { message: expect.stringMatching(/is a job, not a base model.*@last" or "[^"]*@best"/) } },
    })
  })
})
