import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { describeEachBackend } from '../../test/golden/engine/each-backend'
import { goldenFolder } from '../../test/golden/engine/open-golden'
import type { Completion, GenerateRequest, StepConfig, TrainSequence } from './engine'
import { LocalEngine } from './local-engine'

const SOURCE = { name: 'tiny', kind: 'folder', path: goldenFolder('full-qwen2') } as const
const STEP: StepConfig = {
  ...{ temperature: 1, learningRate: 0.01, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.1, maxGradNorm: 1 },
}
const LORA = { rank: 2, alpha: 4, targets: ['q_proj', 'down_proj'], dropout: 0 } as const
const ROWS: readonly TrainSequence[] = [
  { prompt: [5, 6, 7], completion: [8, 9] },
  { prompt: [5, 6, 7, 8, 9, 4], completion: [10, 2] },
]
const DOWN = { dLogprobs: new Float32Array(4).fill(-0.25) }
const request = (values: Partial<GenerateRequest>): GenerateRequest => ({
  policy: 'full',
  prompt: [3, 1, 4, 1, 5, 9, 2, 6],
  seeds: [1, 2, 3],
  maxNewTokens: 12,
  sampling: { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 },
  stopTokenIds: [],
  ...values,
})
const bits = (completions: readonly Completion[]) => completions.map(({ tokens, logprobs }) => ({ tokens, logprobs }))

describeEachBackend((name, open, precision) =>
  // A base in bf16 is another model than its own f32 copy, so a fresh policy of all weights differs from it.
  describe.skipIf(precision !== 'f32')(`${name}: a policy of all weights`, { timeout: 60_000 }, () => {
    const engines: LocalEngine[] = []
    let dir: string
    beforeAll(() => {
      dir = mkdtempSync(join(tmpdir(), 'arbor-full-policy-'))
    })
    afterEach(async () => {
      for (const engine of engines.splice(0)) await engine.close()
    })
    afterAll(() => rmSync(dir, { recursive: true }))
    const start = async () => {
      const engine = new LocalEngine({ backend: await open() })
      engines.push(engine)
      await engine.load(SOURCE)
      return engine
    }
    const startWithAll = async () => {
      const engine = await start()
      const { parameters } = await engine.openPolicy('full', { lora: null, seed: 0 })
      expect(parameters).toBeGreaterThan(20_000)
      await engine.openPolicy('lora', { lora: LORA, seed: 0 })
      for (let i = 0; i < 2; i++) await engine.trainStep('lora', ROWS, DOWN, STEP)
      return engine
    }

    it('samples what the base samples until it is trained, then something else', async () => {
      const engine = await startWithAll()
      const base = bits(await engine.generate(request({ policy: null })))
      expect(bits(await engine.generate(request({})))).toEqual(base)
      const stats = await engine.trainStep('full', ROWS, DOWN, STEP)
      expect(stats.objective).toBeGreaterThan(0)
      expect((await engine.trainStep('full', ROWS, DOWN, STEP)).objective).toBeLessThan(stats.objective!)
      expect(bits(await engine.generate(request({})))).not.toEqual(base)
      expect(bits(await engine.generate(request({ policy: null })))).toEqual(base)
    })

    it('beside the base and an adapter every completion has the bits it has alone', async () => {
      const engine = await startWithAll()
      await engine.openPolicy('second', { lora: null, seed: 0 })
      await engine.trainStep('full', ROWS, DOWN, STEP)
      await engine.trainStep('second', ROWS, DOWN, { ...STEP, learningRate: 0.03 })
      const policies = ['full', null, 'lora', 'second', 'full']
      const alone = []
      for (const policy of policies) alone.push(bits(await engine.generate(request({ policy }))))
      const together = await Promise.all(policies.map((policy) => engine.generate(request({ policy }))))
      expect(together.map(bits)).toEqual(alone)
      expect(new Set(alone.map((one) => JSON.stringify(one))).size).toBe(4)
    })

    it('stored logprobs are those of the training pass', async () => {
      const engine = await startWithAll()
      await engine.trainStep('full', ROWS, DOWN, STEP)
      const completions = await engine.generate(request({}))
      const rows = completions.map(({ tokens }) => ({ prompt: request({}).prompt, completion: tokens }))
      const trained = await engine.logprobs('full', rows, { temperature: 1 })
      const gaps = completions.flatMap((one, i) => one.logprobs.map((lp, t) => Math.abs(lp - trained[i]!.logprobs[t]!)))
      expect(Math.max(...gaps)).toBeLessThan(1e-5)
    })

    it('a saved one goes on in another engine bit for bit, and is a model that loads', async () => {
      const engine = await startWithAll()
      await engine.trainStep('full', ROWS, DOWN, STEP)
      const folder = join(dir, 'saved')
      await engine.savePolicy('full', folder)
      const straight = await engine.trainStep('full', ROWS, DOWN, STEP)
      const other = await start()
      const opened = await other.openPolicy('again', { lora: null, seed: 0, checkpoint: folder })
      expect(opened.policyVersion).toBe(1)
      const { seconds: _, ...stats } = await other.trainStep('again', ROWS, DOWN, STEP)
      expect(straight).toMatchObject(stats)
      const expected = bits(await engine.generate(request({})))
      expect(bits(await other.generate(request({ policy: 'again' })))).toEqual(expected)
      await engine.savePolicy('full', folder) // over the older one
      const loaded = new LocalEngine({ backend: await open() })
      engines.push(loaded)
      await loaded.load({ ...SOURCE, path: folder })
      expect(bits(await loaded.generate(request({ policy: null })))).toEqual(expected)
      expect(JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'))).toMatchObject({
        model_type: 'qwen2',
        dtype: 'float32',
      })
      expect(existsSync(join(folder, 'optimizer.safetensors'))).toBe(true)
    })

    it('a saved one may be opened to be asked only: a quarter of the room, the same bits', async () => {
      const engine = await startWithAll()
      await engine.trainStep('full', ROWS, DOWN, STEP)
      const folder = join(dir, 'asked')
      await engine.savePolicy('full', folder)
      expect((await engine.openSaved('asked', folder)).policyVersion).toBe(1)
      expect(bits(await engine.generate(request({ policy: 'asked' })))).toEqual(bits(await engine.generate(request({}))))
      await expect(engine.trainStep('asked', ROWS, DOWN, STEP)).rejects.toThrow(/opened to be asked only/)
    })

    it('a checkpoint of the other kind, or of two steps, is refused by name', async () => {
      const engine = await startWithAll()
      await engine.savePolicy('lora', join(dir, 'lora'))
      await engine.savePolicy('full', join(dir, 'full'))
      const openFrom = (lora: typeof LORA | null, folder: string) =>
        engine.openPolicy('x', { lora, seed: 0, checkpoint: join(dir, folder) })
      await expect(openFrom(null, 'lora')).rejects.toThrow(/lora: the checkpoint is a LoRA adapter/)
      await expect(openFrom(LORA, 'full')).rejects.toThrow(/full: the checkpoint holds all weights/)
      await expect(openFrom(null, 'nowhere')).rejects.toThrow(/nowhere.model\.safetensors: cannot be opened/)
      await engine.trainStep('full', ROWS, DOWN, STEP)
      cpSync(join(dir, 'full'), join(dir, 'mixed'), { recursive: true })
      await engine.savePolicy('full', join(dir, 'full'))
      writeFileSync(join(dir, 'mixed', 'model.safetensors'), readFileSync(join(dir, 'full', 'model.safetensors')))
      await expect(openFrom(null, 'mixed')).rejects.toThrow(/model.safetensors is of step 1, optimizer.safetensors of 0/)
    })
  }),
)
