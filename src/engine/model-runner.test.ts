import { describe, expect, it } from 'vitest'
import { describeEachBackend } from '../../test/golden/engine/each-backend'
import { openGolden } from '../../test/golden/engine/open-golden'
import { Model } from './model'
import { ModelRunner, planInference } from './model-runner'
import { Scheduler } from './scheduler'

const SAMPLING = { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 }

describeEachBackend((name, open) =>
  describe(`${name}: model runner`, { timeout: 60_000 }, () => {
    it('keys and values that move to larger stores on the way change no bit', async () => {
      const backend = await open()
      const files = openGolden('llama')
      const model = Model.load(backend, files)
      files.weights.close()
      const sample = async (roomySlots: number) => {
        const limits = { ...planInference(model.config, { device: backend.device, kvCacheTokens: 300 }), roomySlots }
        const runner = new ModelRunner(backend, model, {
          limits,
          policies: () => {
            throw new Error('the base has no adapter')
          },
        })
        const scheduler = new Scheduler(runner, limits)
        const answers = [3, 4].map((first) => {
          const request = { policy: null, prompt: [first, 1, 5], seeds: [1, 2], maxNewTokens: 30, sampling: SAMPLING }
          return scheduler.add({ ...request, stopTokenIds: [] }, { policyVersion: 0 })
        })
        while (scheduler.busy) await scheduler.step()
        runner.close()
        return (await Promise.all(answers)).flat().map(({ tokens, logprobs }) => ({ tokens, logprobs }))
      }
      expect(await sample(7)).toEqual(await sample(300))
      model.close()
      backend.close()
    })
  }),
)
