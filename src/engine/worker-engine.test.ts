import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { compiledEngineMissing } from '../../test/engine/compiled'
import { goldenFolder } from '../../test/golden/engine/open-golden'
import { BackendError, ContextWindowExceededError, ModelError } from '../errors'
import type { GenerateRequest, LossGradient, StepConfig } from './engine'
import { EnginePool } from './engine-pool'
import { LocalEngine } from './local-engine'
import { readLoraSpec } from './lora-file'
import { addToken, emptyMask } from './sampling'
import { WorkerEngine } from './worker-engine'

const FOLDER = goldenFolder('llama')
const SOURCE = { name: 'tiny', kind: 'folder', path: FOLDER } as const
const sampling = { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 }
const request = (values: Partial<GenerateRequest> = {}): GenerateRequest => ({
  policy: 'p',
  prompt: [3, 1, 4],
  seeds: [1, 2],
  maxNewTokens: 8,
  sampling,
  stopTokenIds: [],
  ...values,
})
const rows = [{ prompt: [1, 2], completion: [3, 4, 5] }]
const STEP = {
  temperature: 1,
  learningRate: 0.01,
  beta1: 0.9,
  beta2: 0.999,
  eps: 1e-8,
  weightDecay: 0,
  maxGradNorm: 1,
} as StepConfig

const missing = compiledEngineMissing()

describe.skipIf(missing !== null)(`WorkerEngine${missing ? ` (skipped: ${missing})` : ''}`, () => {
  let engine: WorkerEngine
  beforeAll(async () => {
    engine = new WorkerEngine({ device: 'tfjs' })
    expect(await engine.load(SOURCE)).toMatchObject({ name: 'tiny', device: 'tfjs', vocab: 256 })
    await engine.openPolicy('p', { lora: readLoraSpec(join(FOLDER, 'adapter')), seed: 0, checkpoint: join(FOLDER, 'adapter') })
  })
  afterAll(() => engine.close())

  it('answers as an engine in this thread does', async () => {
    const local = new LocalEngine({ device: 'tfjs' })
    await local.load(SOURCE)
    await local.openPolicy('p', { lora: readLoraSpec(join(FOLDER, 'adapter')), seed: 0, checkpoint: join(FOLDER, 'adapter') })
    for (const one of [request(), request({ policy: null, topLogprobs: 2 })])
      expect(await engine.generate(one)).toEqual(await local.generate(one))
    expect(await engine.logprobs('p', rows, { temperature: 1 })).toEqual(await local.logprobs('p', rows, { temperature: 1 }))
    // How long it took is each one's own.
    expect(await engine.status()).toEqual({ ...(await local.status()), busySeconds: expect.any(Number) })
    await local.close()
  })

  it('streams tokens as they come; a stop and an abort travel back', async () => {
    const heard: number[][] = [[], []]
    const onTokens = (index: number, tokens: readonly number[]) => {
      heard[index] = [...tokens]
      return index === 0 && tokens.length >= 3 ? ('stop' as const) : undefined
    }
    const [stopped, whole] = await engine.generate(request({ maxNewTokens: 100 }), { onTokens })
    expect(stopped!.finishReason).toBe('stop')
    expect(stopped!.tokens.length).toBeLessThan(100)
    expect(whole!.tokens).toHaveLength(100)
    expect(heard).toEqual([stopped!.tokens, whole!.tokens])
    const controller = new AbortController()
    const aborted = await engine.generate(request({ maxNewTokens: 100 }), {
      signal: controller.signal,
      onTokens: () => void controller.abort(),
    })
    expect(aborted.map(({ finishReason }) => finishReason)).toEqual(['abort', 'abort'])
    expect(await engine.status()).toMatchObject({ running: 0, waiting: 0 })
  })

  it("what can't be cloned fails its own call, not those of the same moment", async () => {
    const before = engine.generate(request())
    const unclonable = engine.generate({ ...request(), unknown: () => {} } as GenerateRequest)
    const after = engine.generate(request())
    await expect(unclonable).rejects.toThrow(/could not be cloned/)
    const [first, last] = await Promise.all([before, after])
    expect(first.map(({ tokens }) => tokens)).toEqual(last.map(({ tokens }) => tokens))
  })

  it('asks allowedTokens on this side, also one that waits; its error ends the call', async () => {
    const asked: number[][] = []
    const allowedTokens = async (index: number, tokens: readonly number[]) => {
      await new Promise((resolve) => setTimeout(resolve, 2))
      asked[index] = [...tokens]
      const mask = emptyMask(256)
      addToken(mask, 10 + tokens.length)
      addToken(mask, 60 + tokens.length)
      return mask
    }
    const completions = await engine.generate(request(), { allowedTokens })
    for (const [i, { tokens }] of completions.entries()) {
      expect(tokens.map((token, at) => [10 + at, 60 + at].includes(token))).toEqual(Array(8).fill(true))
      expect(asked[i]).toEqual(tokens.slice(0, 7))
    }
    const mine = new Error('mine')
    await expect(engine.generate(request(), { allowedTokens: () => Promise.reject(mine) })).rejects.toBe(mine)
    const controller = new AbortController()
    const never = () => new Promise<null>(() => setTimeout(() => controller.abort(), 5))
    const [aborted] = await engine.generate(request(), { allowedTokens: never, signal: controller.signal })
    expect(aborted!.finishReason).toBe('abort')
    expect(await engine.status()).toMatchObject({ running: 0, waiting: 0 })
  })

  it('runs the loss on this side, also one that waits', async () => {
    const seen: number[] = []
    const stats = await engine.trainStep(
      'p',
      rows,
      async (logprobs, entropies) => {
        seen.push(logprobs.length, entropies.length)
        await new Promise((resolve) => setTimeout(resolve, 5))
        return { dLogprobs: Float32Array.of(-1, -1, -1), dEntropies: Float32Array.of(0, 0, 0.1) }
      },
      STEP,
    )
    expect(seen).toEqual([3, 3])
    expect(stats.policyVersion).toBe(1)
    expect(stats.gradNorm).toBeGreaterThan(0)
  })

  it('a linear loss travels there whole; a policy of all weights is trained there', async () => {
    await engine.openPolicy('full', { lora: null, seed: 0 })
    const [before] = await engine.logprobs('full', rows, { temperature: 1 })
    const { logprobs } = before!
    const stats = await engine.trainStep('full', rows, { dLogprobs: Float32Array.of(-1, -1, -2) }, STEP)
    expect(stats.objective).toBeCloseTo(-logprobs[0]! - logprobs[1]! - 2 * logprobs[2]!, 4)
    expect(stats.policyVersion).toBe(1)
    await engine.closePolicy('full')
  })

  it('errors arrive as what they are, those of callbacks as the very object', async () => {
    await expect(engine.generate(request({ prompt: Array(128).fill(1) }))).rejects.toBeInstanceOf(ContextWindowExceededError)
    await expect(engine.generate(request({ policy: 'q' }))).rejects.toMatchObject({ code: 'unknown_policy' })
    const other = new WorkerEngine({ device: 'tfjs' })
    await expect(other.load({ ...SOURCE, path: '/nowhere' })).rejects.toBeInstanceOf(ModelError)
    await other.close()
    const mine = new Error('mine')
    const fail = () => {
      throw mine
    }
    await expect(engine.trainStep('p', rows, fail, STEP)).rejects.toBe(mine)
    await expect(engine.generate(request(), { onTokens: fail })).rejects.toBe(mine)
    expect((await engine.status()).policies).toEqual([{ name: 'p', policyVersion: 1 }])
  })

  it('closing rejects what runs and all that comes after', async () => {
    const other = new WorkerEngine({ device: 'tfjs' })
    await other.load(SOURCE)
    const running = expect(other.generate(request({ policy: null, maxNewTokens: 100 }))).rejects.toThrow(/was closed/)
    await other.close()
    await running
    await expect(other.status()).rejects.toThrow(/was closed/)
    await other.close()
  })

  it('a thread that dies is a BackendError for all who wait, and for those who come later', async () => {
    const other = new WorkerEngine({ device: 'tfjs' })
    await other.load(SOURCE)
    const running = expect(other.generate(request({ policy: null, maxNewTokens: 100 }))).rejects.toMatchObject({ op: 'worker' })
    await (other as unknown as { thread: { terminate(): Promise<number> } }).thread.terminate()
    await running
    await expect(other.status()).rejects.toBeInstanceOf(BackendError)
    await other.close()
  })

  it('two threads are a pool: gradients and the loss travel, and what went wrong', async () => {
    const local = new LocalEngine({ device: 'tfjs' })
    const pool = new EnginePool([new WorkerEngine({ device: 'tfjs' }), new WorkerEngine({ device: 'tfjs', index: 1 })])
    const lora = { rank: 2, alpha: 4, targets: ['q_proj', 'down_proj'], dropout: 0 } as const
    for (const one of [local, pool]) {
      await one.load(SOURCE)
      await one.openPolicy('q', { lora, seed: 0 })
    }
    const many = [3, 4, 5].map((token) => ({ prompt: [1, token], completion: [6, token, 7] }))
    const loss: LossGradient = (logprobs) => ({ dLogprobs: logprobs.map((_, i) => 0.1 * (i - 3)) })
    const mine = new Error('mine')
    await expect(pool.trainStep('q', many, () => Promise.reject(mine), STEP)).rejects.toBe(mine)
    for (const given of [loss, { dLogprobs: new Float32Array(9).fill(-0.1) }]) {
      const [alone, together] = [await local.trainStep('q', many, given, STEP), await pool.trainStep('q', many, given, STEP)]
      expect(together.gradNorm / alone.gradNorm).toBeCloseTo(1, 4)
    }
    const prompts = [1, 2].map((seed) => request({ policy: 'q', seeds: [seed] }))
    const sampled = await Promise.all(prompts.map((one) => pool.generate(one)))
    expect(sampled.map(([one]) => one!.policyVersion)).toEqual([2, 2])
    const { policies, work } = await pool.status()
    expect({ policies, sampled: work.sampledTokens }).toEqual({ policies: [{ name: 'q', policyVersion: 2 }], sampled: 16 })
    await Promise.all([local.close(), pool.close()])
  })

  it('a pool that loses a thread in the middle of a step ends, and so does the step', async () => {
    const members = [new WorkerEngine({ device: 'tfjs' }), new WorkerEngine({ device: 'tfjs' })]
    const pool = new EnginePool(members)
    await pool.load(SOURCE)
    await pool.openPolicy('full', { lora: null, seed: 0 })
    const many = [3, 4].map((token) => ({ prompt: [1, token], completion: [6, token, 7] }))
    const step = pool.trainStep(
      'full',
      many,
      async (logprobs) => {
        await (members[1] as unknown as { thread: { terminate(): Promise<number> } }).thread.terminate()
        return { dLogprobs: logprobs }
      },
      STEP,
    )
    await expect(step).rejects.toMatchObject({ op: 'worker' })
    await expect(pool.generate(request({ policy: null }))).rejects.toThrow(/Engine 1 of 2 is gone.*Start the server again/)
    await pool.close()
  })
})
