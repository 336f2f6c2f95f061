import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openGolden } from '../../test/golden/engine/open-golden'
import { ContextWindowExceededError, ModelError, OptionError } from '../errors'
import { LORA_TARGETS, type LossGradient, type StepConfig, type TokenStats, type TrainSequence } from './engine'
import { LoraWeights } from './lora'
import { Model } from './model'
import type { Arena, Backend } from './ops/ops'
import { openTfjs } from './ops/tfjs'
import { planPackTokens, rowBytes } from './pack-plan'
import { Trainer } from './trainer'

const STEP: StepConfig = {
  ...{ temperature: 1, learningRate: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
}
const SEQUENCES: readonly TrainSequence[] = [
  { prompt: [5, 6, 7], completion: [8, 9] },
  { prompt: [50, 60], completion: [70] },
  { prompt: [5, 6, 7], completion: [] },
  { prompt: [5, 6, 7], completion: [8, 10, 11] },
]
const push: LossGradient = (logprobs) => ({ dLogprobs: logprobs.map(() => -1) })

describe('trainer', () => {
  let backend: Backend
  let model: Model
  let trainer: Trainer
  beforeAll(async () => {
    backend = await openTfjs()
    const open = openGolden('qwen2')
    model = Model.load(backend, open)
    open.weights.close()
    trainer = new Trainer(backend, model)
  })
  afterAll(() => {
    trainer.close()
    model.close()
    backend.close()
  })
  const fresh = () =>
    LoraWeights.fresh(backend, model.config, { spec: { rank: 2, alpha: 4, targets: LORA_TARGETS, dropout: 0 }, seed: 1 })
  const bits = async (lora: LoraWeights) => Promise.all(lora.trainables.map(({ param }) => backend.download(param)))

  it('a fresh adapter has the bits of the base', async () => {
    const options = { temperature: 0.8 }
    expect(await trainer.logprobs(fresh(), SEQUENCES, options)).toEqual(await trainer.logprobs(null, SEQUENCES, options))
  })

  it('values come in the order given, whatever the packs', async () => {
    const alone: TokenStats[] = []
    for (const one of SEQUENCES) alone.push(...(await trainer.logprobs(null, [one], { temperature: 1 })))
    for (const packTokens of [1, 6, 1000])
      expect(await trainer.logprobs(null, SEQUENCES, { temperature: 1, packTokens })).toEqual(alone)
    expect(alone.map(({ logprobs }) => logprobs.length)).toEqual([2, 1, 0, 3])
  })

  it('an update raises the logprobs it is asked to raise, and counts itself', async () => {
    const lora = fresh()
    const before = await trainer.logprobs(lora, SEQUENCES, STEP)
    const slow: LossGradient = async (logprobs, entropies) => {
      expect(logprobs).toEqual(Float32Array.from(before.flatMap((one) => [...one.logprobs])))
      expect(entropies).toEqual(Float32Array.from(before.flatMap((one) => [...one.entropies])))
      return push(logprobs, entropies)
    }
    const stats = await trainer.trainStep(lora, SEQUENCES, slow, STEP)
    expect(stats).toMatchObject({ policyVersion: 1, tokens: 3 + 1 + 1 + 2, tokensUnshared: 4 + 2 + 5, packs: 1 })
    expect(stats.gradNorm).toBeGreaterThan(0)
    const total = (all: typeof before) => all.flatMap(({ logprobs }) => [...logprobs]).reduce((sum, lp) => sum + lp, 0)
    expect(total(await trainer.logprobs(lora, SEQUENCES, STEP))).toBeGreaterThan(total(before))
  })

  it('members that are not targeted stay zero in a fused weight', async () => {
    const lora = LoraWeights.fresh(backend, model.config, {
      spec: { rank: 2, alpha: 4, targets: ['q_proj', 'up_proj'], dropout: 0 },
      seed: 1,
    })
    for (let i = 0; i < 2; i++) await trainer.trainStep(lora, SEQUENCES, push, { ...STEP, weightDecay: 0.1 })
    const { a, b } = lora.matrix(1, 'qkv')!
    const zero = (values: ArrayLike<number>) => Array.from(values).every((value) => value === 0)
    expect(zero(await backend.download(a.rows(2, 4)))).toBe(true)
    expect(zero(await backend.download(b.rows(64, 64)))).toBe(true)
    expect(zero(await backend.download(b.rows(0, 64)))).toBe(false)
  })

  it('no completion token: no update', async () => {
    const lora = fresh()
    const stats = await trainer.trainStep(lora, [{ prompt: [1, 2], completion: [] }], push, STEP)
    expect(stats).toMatchObject({ policyVersion: 0, gradNorm: 0, tokens: 0, packs: 0 })
    expect(lora.step).toBe(0)
    expect(await trainer.logprobs(lora, [], STEP)).toEqual([])
  })

  it.each<[string, LossGradient, RegExp]>([
    ['NaN', (lp) => ({ dLogprobs: lp.map((_, i) => (i === 3 ? Number.NaN : 0)) }), /NaN as dLogprobs\[3\]/],
    [
      'an infinite entropy gradient',
      (lp, h) => ({ dLogprobs: lp, dEntropies: h.map(() => 1 / 0) }),
      /Infinity as dEntropies\[0\]/,
    ],
    ['too few values', (lp) => ({ dLogprobs: lp.slice(1) }), /returned 5 values as dLogprobs for 6/],
  ])('a loss that answers %s changes nothing', async (_, loss, message) => {
    const lora = fresh()
    const before = await bits(lora)
    await expect(trainer.trainStep(lora, SEQUENCES, loss, STEP)).rejects.toThrow(message)
    expect(await bits(lora)).toEqual(before)
    expect([lora.step, lora.policyVersion]).toEqual([0, 0])
  })

  it('sequences that can not be computed are named', async () => {
    const long = [{ prompt: Array.from({ length: 120 }, () => 3), completion: Array.from({ length: 9 }, () => 4) }]
    await expect(trainer.logprobs(null, long, STEP)).rejects.toThrow(ContextWindowExceededError)
    await expect(trainer.logprobs(null, long, STEP)).rejects.toThrow("120 + 9 tokens; the model's context holds 128")
    await expect(trainer.logprobs(null, [{ prompt: [], completion: [1] }], STEP)).rejects.toThrow(OptionError)
    await expect(trainer.logprobs(null, [{ prompt: [1], completion: [256] }], STEP)).rejects.toThrow(/token 256/)
  })

  it('the default pack follows the memory, within limits', () => {
    const smollm = { ...model.config, layers: 30, hidden: 576, heads: 9, kvHeads: 3, headDim: 64, inner: 1536 }
    const plan = (gigabytes: number, device: 'cpu' | 'cuda' = 'cpu') =>
      planPackTokens(smollm, gigabytes * 2 ** 30, { device, valueBytes: 4 })
    expect(plan(0.1)).toBe(256)
    expect([plan(1000), plan(1000, 'cuda')]).toEqual([8192, 16_384])
    expect(plan(0.5)).toBeGreaterThan(600)
    expect(plan(0.5)).toBeLessThan(800)
  })

  it('on a GPU a pass takes its memory in one piece, as much as was planned', async () => {
    const arenas: Arena[] = []
    const arena = (bytes: number) => arenas[arenas.push(backend.arena(bytes)) - 1]!
    const gpu = Object.create(backend, { device: { value: 'cuda' }, arena: { value: arena } }) as Backend
    const own = new Trainer(gpu, model)
    const tokens = (length: number, first: number) => Array.from({ length }, (_, i) => (first + 7 * i) % 250)
    const sequences = Array.from({ length: 8 }, (_, i) => ({ prompt: tokens(60, i >> 2), completion: tokens(20, 100 + i) }))
    const [rows, pairs] = [2 * (60 + 4 * 19), 8 * 20]
    const planned = rows * rowBytes(model.config, { valueBytes: 4, rank: 2 }) + 4 * pairs * model.config.vocab
    await own.gradients(fresh(), sequences, { dLogprobs: new Float32Array(pairs).fill(-1) }, STEP)
    const { used, capacity } = arenas[0]!
    expect(used / planned).toBeGreaterThan(0.95)
    expect(used / planned).toBeLessThan(1.05)
    expect(capacity).toBeGreaterThan(used)
    await own.gradients(fresh(), sequences.slice(0, 4), push, STEP)
    expect(arenas[0]!.capacity).toBe(capacity)
    own.close()
  })

  it('a model whose weights do not fit its config is named', () => {
    const open = openGolden('qwen2')
    expect(() => Model.load(backend, { ...open, config: { ...open.config, inner: 95 } })).toThrow(ModelError)
    expect(() => Model.load(backend, { ...open, config: { ...open.config, layers: 3 } })).toThrow(
      /model.layers.2.self_attn.q_proj.weight/,
    )
    open.weights.close()
  })
})
