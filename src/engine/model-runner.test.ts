import { describe, expect, it } from 'vitest'
import { describeEachBackend } from '../../test/golden/engine/each-backend'
import { openGolden } from '../../test/golden/engine/open-golden'
import { type GenerateRequest, LORA_TARGETS } from './engine'
import { planInference } from './inference-plan'
import { LoraWeights } from './lora'
import { Model } from './model'
import { ModelRunner } from './model-runner'
import type { Backend } from './ops/ops'
import type { PolicyWeights } from './policy-weights'
import { Scheduler } from './scheduler'

const SAMPLING = { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1.1 }

/** A runner with its scheduler, over policies by name. */
class Inference {
  readonly policies = new Map<string, PolicyWeights>()
  readonly runner: ModelRunner
  private readonly scheduler: Scheduler

  constructor(backend: Backend, model: Model, roomySlots: number) {
    const limits = { ...planInference(model.config, { device: backend.device, kvCacheTokens: 300 }), roomySlots }
    this.runner = new ModelRunner(backend, model, { limits, policies: (name) => this.policies.get(name)! })
    this.scheduler = new Scheduler(this.runner, limits)
  }

  /** Passes that were enqueued before the one before them was heard of. */
  get ahead(): number {
    return this.scheduler.counters.ahead
  }

  async sample(
    policies: readonly (string | null)[],
    policyVersion = 0,
    other: Partial<GenerateRequest> | ((i: number) => Partial<GenerateRequest>) = {},
  ) {
    const answers = policies.map((policy, i) => {
      const request = {
        policy,
        prompt: [3 + i, 1, 5],
        seeds: [1, 2],
        maxNewTokens: 30,
        sampling: SAMPLING,
        ...(typeof other === 'function' ? other(i) : other),
      }
      return this.scheduler.add({ ...request, stopTokenIds: [] }, { policyVersion })
    })
    while (this.scheduler.busy) await this.scheduler.step()
    return (await Promise.all(answers)).flat().map(({ tokens, logprobs }) => ({ tokens, logprobs }))
  }
}

/** An adapter that changes what the base says. */
function adapter(backend: Backend, model: Model, seed: number): LoraWeights {
  const spec = { rank: 4, alpha: 64, targets: LORA_TARGETS, dropout: 0 }
  const weights = LoraWeights.fresh(backend, model.config, { spec, seed })
  for (const { b } of weights.modules) backend.ops.fill(b.param, 0.02 * seed)
  return weights
}

/** As if it computed beside us, or not: its runner goes a pass ahead, or waits. Counts what is uploaded. */
function as(device: 'cuda' | 'cpu', backend: Backend) {
  const uploaded = { numbers: 0 }
  const upload: Backend['upload'] = (to, data) => {
    uploaded.numbers += data.length
    backend.upload(to, data)
  }
  const capture = backend.capture.bind(backend) // it notes on itself that it records
  const changes = { device: { value: device }, upload: { value: upload }, capture: { value: capture } }
  return { uploaded, backend: Object.create(backend, changes) as Backend }
}

/** Every capture of it calls the ops again. */
function withoutCaptures(backend: Backend): Backend {
  return Object.create(backend, { capture: { value: (run: () => void) => ({ replay: run, free: () => {} }) } }) as Backend
}

describeEachBackend((name, open) =>
  describe(`${name}: model runner`, { timeout: 60_000 }, () => {
    const withModel = async (test: (backend: Backend, model: Model) => Promise<void>) => {
      const backend = await open()
      const files = openGolden('llama')
      const model = Model.load(backend, files)
      files.weights.close()
      await test(backend, model)
      model.close()
      backend.close()
    }

    it('keys and values that move to larger stores on the way change no bit', () =>
      withModel(async (backend, model) => {
        const [small, large] = [7, 300].map((slots) => new Inference(backend, model, slots)) as [Inference, Inference]
        expect(await small.sample([null, null])).toEqual(await large.sample([null, null]))
        for (const { runner } of [small, large]) runner.close()
      }))

    it('a pass ahead, with slots set aside and contexts that stay on the device, changes no bit', () =>
      withModel(async (backend, model) => {
        const other = as('cuda', backend)
        const [waits, goes] = [as('cpu', backend).backend, other.backend].map((one) => new Inference(one, model, 300)) as [
          Inference,
          Inference,
        ]
        const long = {
          prompt: Array.from({ length: 60 }, (_, i) => (7 * i) % 50),
          sampling: { ...SAMPLING, repetitionPenalty: 1 },
        }
        const expected = await waits.sample([null, null], 0, long)
        other.uploaded.numbers = 0
        expect(await goes.sample([null, null], 0, long)).toEqual(expected)
        expect(goes.ahead).toBe(29) // all but the prompt's pass
        const prompts = 60 * 3 + 4 * 60 // numbers of their rows, and what they see
        expect(other.uploaded.numbers).toBeLessThan(prompts + 4 * (60 + 30) + 30 * 150) // contexts once, then what every pass needs
        for (const { runner } of [waits, goes]) runner.close()
      }))

    it('a pass of a size that others have, its last row computed again to make it up, changes no bit', () =>
      withModel(async (backend, model) => {
        const [waits, goes] = [as('cpu', backend), as('cuda', backend)].map((one) => new Inference(one.backend, model, 300)) as [
          Inference,
          Inference,
        ]
        const one = adapter(backend, model, 2)
        const policies = Array.from({ length: 9 }, () => 'one')
        const uneven = (i: number) => ({ maxNewTokens: 3 + 2 * i, sampling: { ...SAMPLING, repetitionPenalty: 1 } })
        const answers: unknown[] = []
        for (const inference of [waits, goes]) {
          inference.policies.set('one', one)
          answers.push(await inference.sample(policies, 0, uneven))
        }
        expect(answers[1]).toEqual(answers[0])
        expect(goes.runner.captures.replayed).toBeGreaterThan(10) // of 18 passes, by 18 to 2 sequences
        expect(waits.runner.captures.replayed).toBeLessThan(goes.runner.captures.replayed)
        for (const { runner } of [waits, goes]) runner.close()
        one.close()
      }))

    it('passes of a known shape are replayed, to the bits of passes whose ops are called', () =>
      withModel(async (backend, model) => {
        const [replayed, called] = [backend, withoutCaptures(backend)].map((one) => new Inference(one, model, 50)) as [
          Inference,
          Inference,
        ]
        const [one, two, other] = [1, 2, 3].map((seed) => adapter(backend, model, seed)) as [
          LoraWeights,
          LoraWeights,
          LoraWeights,
        ]
        const answers: unknown[] = []
        for (const inference of [replayed, called]) {
          inference.policies.set('one', one).set('two', two)
          const first = await inference.sample(['one', null, 'two'])
          inference.policies.set('two', other) // closed, and opened again under its name
          answers.push([first, await inference.sample(['one', null, 'two'], 1)])
        }
        expect(answers[0]).toEqual(answers[1])
        expect((answers[0] as unknown[][])[0]!.slice(4)).not.toEqual((answers[0] as unknown[][])[1]!.slice(4))
        const { recorded, replayed: times } = replayed.runner.captures
        expect(recorded).toBeLessThan(8)
        expect(times).toBeGreaterThan(40) // of 2 x 29 decode passes
        for (const { runner } of [replayed, called]) runner.close()
        for (const weights of [one, two, other]) weights.close()
      }))
  }),
)
