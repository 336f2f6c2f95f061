import { describe, expect, it } from 'vitest'
import type { OpenedPolicy, PolicySpec } from '../engine/engine'
import { FakeEngine } from '../engine/fake-engine'
import { initialize, sampledGroup, type TestApp, TRAINER_CONFIG, testApp } from './fixture'
import { gpuNote } from './gpu-wish'

/** Grants what it is told to. */
class GrantingEngine extends FakeEngine {
  constructor(private readonly grant: OpenedPolicy['gpus']) {
    super()
  }

  override async openPolicy(name: string, spec: PolicySpec): Promise<OpenedPolicy> {
    return { ...(await super.openPolicy(name, spec)), ...(this.grant && { gpus: this.grant }) }
  }
}

async function notesOfTwoSteps(app: TestApp, body: object): Promise<string[][]> {
  const { job_id } = await initialize(app, body)
  for (const batch_id of [0, 1]) {
    const batch = await sampledGroup(app, job_id, `question ${batch_id}`)
    await app.call('/v1/fine_tuning/grpo/step', { job_id, model: job_id, batch_id, batch })
  }
  await app.call('/v1/fine_tuning/grpo/terminate', { job_id })
  return app.services.jobs.get(job_id).records.map(({ notes }) => notes.filter((note) => note.includes('GPU')))
}

const multi = (num_inference_gpus: number, num_training_gpus: number) => ({
  gpu_config: { type: 'multi', multi: { num_inference_gpus, num_training_gpus } },
})

describe('a wish for GPUs', () => {
  it('reaches the engine, from gpu_config or else from trainer_config', async () => {
    for (const [body, gpus] of [
      [multi(3, 5), { inference: 3, training: 5 }],
      [{ trainer_config: { ...TRAINER_CONFIG, num_training_gpus: 2, num_inference_gpus: 4 } }, { inference: 4, training: 2 }],
      [{}, { inference: 1, training: 1 }],
    ] as const) {
      const engine = new FakeEngine()
      await initialize(await testApp({ engine }), body)
      expect(engine.calls).toContainEqual(expect.objectContaining({ spec: expect.objectContaining({ gpus }) }))
    }
  })

  it('that the machine can’t meet is told once, in the first step’s notes', async () => {
    const [first, second] = await notesOfTwoSteps(await testApp(), multi(2, 2))
    expect(first).toEqual([
      'The split of GPUs (2 for rollouts, 2 for training) is kept by a server with --gpus, where there are 4: one device here does both.',
    ])
    expect(second).toEqual([])
    const two = { training: 2, inference: 2, apart: false }
    expect((await notesOfTwoSteps(await testApp({ engine: new GrantingEngine(two) }), multi(2, 2)))[0]).toEqual([
      expect.stringContaining('all 2 GPUs here do both'),
    ])
  })

  it('that is met, or was not made, needs no word', () => {
    expect(gpuNote({ training: 2, inference: 2 }, { training: 2, inference: 2, apart: true })).toBeNull()
    expect(gpuNote({ training: 1, inference: 1 }, undefined)).toBeNull()
    expect(gpuNote({ training: 1, inference: 1 }, { training: 4, inference: 4, apart: false })).toBeNull()
    expect(gpuNote({ training: 0, inference: 2 }, undefined)).toMatch(/--gpus: one device here does both/)
  })
})
