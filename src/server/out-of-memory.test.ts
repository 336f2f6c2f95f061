import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { Completion, GenerateControl, GenerateRequest, TrainStats } from '../engine/engine'
import { FakeEngine } from '../engine/fake-engine'
import { BackendError, OutOfMemoryError } from '../errors'
import { initialize, MODEL, sampledGroup, testApp } from './fixture'
import { startServer } from './main'

const PLAN = [{ what: 'rollouts', bytes: 5e9, lower: 'fewer of them' }]
const outOfMemory = () => Promise.reject(new OutOfMemoryError('no device memory for 3.00 GiB', { op: 'alloc', plan: PLAN }))

/** Has no memory for what is named. */
class FullEngine extends FakeEngine {
  full: 'load' | 'generate' | 'openPolicy' | 'trainStep' | null = null
  override load(source: Parameters<FakeEngine['load']>[0]) {
    return this.full === 'load' ? outOfMemory() : super.load(source)
  }
  override generate(request: GenerateRequest, control: GenerateControl = {}): Promise<Completion[]> {
    return this.full === 'generate' ? outOfMemory() : super.generate(request, control)
  }
  override openPolicy(...args: Parameters<FakeEngine['openPolicy']>) {
    return this.full === 'openPolicy' ? outOfMemory() : super.openPolicy(...args)
  }
  override trainStep(...args: Parameters<FakeEngine['trainStep']>): Promise<TrainStats> {
    return this.full === 'trainStep' ? outOfMemory() : super.trainStep(...args)
  }
}

const ASKED = { model: MODEL, messages: [{ role: 'user', content: 'hello' }], max_tokens: 3 }

describe('a server whose device is lost', () => {
  it('says so to everybody who asks for a rollout, still tells how its jobs are, and ends', async () => {
    const text = "an illegal memory access was encountered. The device can't go on in this process: start the server again"
    const engine = new FullEngine()
    engine.generate = () => Promise.reject(new BackendError(text, { op: 'status' }))
    const app = await testApp({ engine })
    const { job_id } = await initialize(app)
    for (let i = 0; i < 2; i++) {
      const refused = await app.post('/v1/chat/completions', ASKED)
      expect(refused.status).toBe(500)
      expect(await refused.json()).toMatchObject({ error: { message: expect.stringContaining(text), code: 'backend_error' } })
    }
    expect(await app.call('/v1/fine_tuning/grpo/status', { job_id })).toMatchObject({ status: 'running' })
    expect((await app.get('/v1/health')).status).toBe(200)
    await app.services.jobs.interrupt()
    await engine.close()
  })
})

describe('a server whose device has no memory left', () => {
  it('answers a chat request with 507 and where the memory goes, and the next one as ever', async () => {
    const engine = new FullEngine({ script: () => [65, 66, 257] })
    const app = await testApp({ engine })
    engine.full = 'generate'
    const refused = await app.post('/v1/chat/completions', ASKED)
    expect(refused.status).toBe(507)
    expect(await refused.json()).toEqual({
      error: { message: 'no device memory for 3.00 GiB', type: 'server_error', param: null, code: 'out_of_memory' },
      detail: 'no device memory for 3.00 GiB',
      memory: PLAN,
    })
    engine.full = null
    expect((await app.post('/v1/chat/completions', ASKED)).status).toBe(200)
  })

  it('refuses a job that does not fit, and takes it when there is room', async () => {
    const engine = new FullEngine({ script: () => [65, 257] })
    const app = await testApp({ engine })
    engine.full = 'openPolicy'
    await expect(initialize(app)).rejects.toThrow(/initialize: 507 .*"code":"out_of_memory"/)
    engine.full = null
    expect((await initialize(app)).status).toBe('running')
  })

  it('ends a job whose update does not fit with the reason; the other jobs and rollouts go on', async () => {
    const engine = new FullEngine()
    const app = await testApp({ engine })
    const [job, other] = [await initialize(app), await initialize(app)]
    const batch = await sampledGroup(app, job.job_id, 'what?')
    const status = async (id: string) => (await app.post('/v1/fine_tuning/grpo/status', { job_id: id })).json()
    engine.full = 'trainStep'
    await app.call('/v1/fine_tuning/grpo/step', { job_id: job.job_id, model: job.job_id, batch_id: 0, batch })
    await app.services.jobs.get(job.job_id).trained()
    const message = `Job ${job.job_id} failed: step 1: no device memory for 3.00 GiB`
    expect(await status(job.job_id)).toMatchObject({ status: 'failed', error: { message } })
    engine.full = null
    expect(await status(other.job_id)).toMatchObject({ status: 'running' })
    expect((await app.post('/v1/chat/completions', ASKED)).status).toBe(200)
  })

  it('that can not even load the model says so, closes the engine and frees its port', async () => {
    let closed = 0
    const engine = new FullEngine()
    engine.full = 'load'
    engine.close = async () => void closed++
    const options = { storage: mkdtempSync(join(tmpdir(), 'arbor-full-')), version: '0', model: 'arbor-tiny', engine, port: 0 }
    await expect(startServer(options)).rejects.toThrow(/no device memory for 3\.00 GiB/)
    expect(closed).toBe(1)
  })
})
