// Training all weights against transformers + PyTorch (make_full.py), on whatever backend is given: every weight's gradient, ten AdamW
// updates; and what needs a whole model: pack sizes, the linear loss, checkpoints.

import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { LinearLoss, LossGradient, StepConfig, TrainSequence } from '../../../src/engine/engine'
import type { FullWeights } from '../../../src/engine/full-weights'
import { loadFull, saveFull } from '../../../src/engine/full-weights-file'
import { Model } from '../../../src/engine/model'
import type { Backend } from '../../../src/engine/ops/ops'
import { readSafetensors } from '../../../src/engine/safetensors'
import { learningRateAt } from '../../../src/engine/schedule'
import { Trainer } from '../../../src/engine/trainer'
import { type FullGoldenModel, goldenFolder, openGolden } from './open-golden'

interface Golden {
  readonly sequences: readonly TrainSequence[]
  readonly weights: readonly [readonly number[], readonly number[]] // of logprobs, of entropies
  readonly steps: Omit<StepConfig, 'learningRate'> & { base: number; warmup: number; total: number }
  readonly logprobs: readonly number[]
  readonly training: { losses: readonly number[]; gradNorms: readonly number[]; learningRates: readonly number[] }
}

/** Declares the tests. `open` is called once per model. */
export function describeFullTraining(name: string, open: () => Promise<Backend>): void {
  for (const architecture of ['full-llama', 'full-qwen2'] as const)
    describe(`${name}: all weights of a tiny ${architecture.slice(5)}`, { timeout: 60_000 }, () =>
      declareTests(architecture, open),
    )
}

function declareTests(architecture: FullGoldenModel, openBackend: () => Promise<Backend>): void {
  const folder = goldenFolder(architecture)
  const golden = JSON.parse(readFileSync(join(folder, 'golden.json'), 'utf8')) as Golden
  const { temperature } = golden.steps
  const weighted: LossGradient = () => ({
    dLogprobs: Float32Array.from(golden.weights[0]),
    dEntropies: Float32Array.from(golden.weights[1]),
  })
  const tokens = golden.logprobs.length
  const crossEntropy: LinearLoss = { dLogprobs: new Float32Array(tokens).fill(-1 / tokens) }
  let backend: Backend
  let model: Model
  let trainer: Trainer
  beforeAll(async () => {
    backend = await openBackend()
    const open = openGolden(architecture)
    model = Model.load(backend, open)
    open.weights.close()
    trainer = new Trainer(backend, model)
  }, 60_000)
  afterAll(() => {
    trainer?.close()
    model?.close()
    backend?.close()
  })
  const fresh = () => loadFull(backend, model.config, folder)
  const train = async (weights: FullWeights, from: number, to: number) => {
    const { base, warmup, total, ...steps } = golden.steps
    const log = []
    for (let step = from; step < to; step++) {
      const learningRate = learningRateAt(step, { type: 'linear', base, warmup, total })
      const stats = await trainer.trainStep(weights, golden.sequences, crossEntropy, { ...steps, learningRate })
      log.push({ loss: stats.objective!, gradNorm: stats.gradNorm, learningRate })
    }
    return log
  }

  it("a fresh copy gives the base's logprobs, and those of transformers", async () => {
    const weights = fresh()
    const own = flat(await trainer.logprobs(weights, golden.sequences, { temperature }))
    expectClose(own, golden.logprobs, 1e-5)
    expectClose(own, flat(await trainer.logprobs(null, golden.sequences, { temperature })), 1e-5)
  })

  it("every weight's gradient agrees", async () => {
    const weights = fresh()
    await trainer.gradients(weights, golden.sequences, weighted, { temperature })
    await expectTensors(weights, 'grad', { path: join(folder, 'tensors.safetensors'), limit: 2e-5, relative: true })
  })

  it('ten updates agree: losses, gradient norms, all weights', async () => {
    const weights = fresh()
    const log = await train(weights, 0, golden.steps.total)
    const { losses, gradNorms, learningRates } = golden.training
    expectClose(
      log.map(({ loss }) => loss),
      losses,
      2e-5 * losses[0]!,
    )
    expectClose(
      log.map(({ gradNorm }) => gradNorm),
      gradNorms,
      1e-4 * Math.max(...gradNorms),
    )
    expectClose(
      log.map(({ learningRate }) => learningRate),
      learningRates,
      1e-12,
    )
    // AdamW makes much of gradients near zero, whatever order they were summed in.
    await expectTensors(weights, 'param', { path: join(folder, 'final.safetensors'), limit: 3e-5, relative: false })
    expect([weights.step, weights.policyVersion]).toEqual([10, 10])
  })

  it('a linear loss has the gradient of the function it stands for, whatever the packs', async () => {
    const weights = fresh()
    await trainer.gradients(weights, golden.sequences, () => crossEntropy, { temperature, packTokens: 1 })
    const plain = await download(weights, 'grad')
    for (const packTokens of [1, 20, 8192]) {
      await trainer.gradients(weights, golden.sequences, crossEntropy, { temperature, packTokens })
      for (const [name, values] of await download(weights, 'grad'))
        expectClose(values, plain.get(name)!, 1e-5 * largest(plain.get(name)!), `${packTokens} ${name}`)
    }
  })

  it("the loss rises along a weight's gradient as fast as the gradient says", async () => {
    const weights = fresh()
    await trainer.gradients(weights, golden.sequences, crossEntropy, { temperature })
    const gradients = await download(weights, 'grad')
    for (const trainable of weights.trainables.filter((_, i) => i % 4 === 0)) {
      const names = trainable.stack.pieces.map(([name]) => name)
      const gradient = names.flatMap((name) => [...gradients.get(name)!])
      const values = (await backend.download(trainable.param)) as Float32Array
      const length = Math.hypot(...gradient)
      const lossAt = async (step: number) => {
        backend.upload(
          trainable.param,
          values.map((value, i) => value + (step * gradient[i]!) / length),
        )
        return -flat(await trainer.logprobs(weights, golden.sequences, { temperature })).reduce((sum, lp) => sum + lp, 0) / tokens
      }
      const slope = ((await lossAt(5e-3)) - (await lossAt(-5e-3))) / 1e-2
      await lossAt(0)
      expect(Math.abs(slope - length), `${names}: ${slope} against ${length}`).toBeLessThan(0.02 * length + 1e-4)
    }
  })

  it('six steps have the bits of three, saved, loaded elsewhere, and three', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'arbor-full-'))
    try {
      const straight = fresh()
      const early = await train(straight, 0, 3)
      await saveFull(straight, dir)
      const log = [...early, ...(await train(straight, 3, 6))]
      const other = await openBackend()
      const loaded = loadFull(other, model.config, dir)
      expect([loaded.step, loaded.policyVersion]).toEqual([3, 3])
      const open = openGolden(architecture)
      const elsewhere = new Trainer(other, Model.load(other, open))
      open.weights.close()
      trainer.close()
      trainer = elsewhere
      expect([...early, ...(await train(loaded, 3, 6))]).toEqual(log)
      for (const field of ['param', 'm', 'v'] as const)
        expect(await download(loaded, field)).toEqual(await download(straight, field))
    } finally {
      rmSync(dir, { recursive: true })
    }
  })
}

/** All weights (or their gradients or moments) by Hugging Face names. */
async function download(weights: FullWeights, field: 'param' | 'grad' | 'm' | 'v'): Promise<Map<string, Float32Array>> {
  const out = new Map<string, Float32Array>()
  for (const trainable of weights.trainables) {
    const values = (await weights.backend.download(trainable[field])) as Float32Array
    let offset = 0
    for (const [name, rows] of trainable.stack.pieces)
      out.set(name, values.slice(offset, (offset += rows * (trainable.stack.columns ?? 1))))
  }
  return out
}

/** Every weight is in the file and agrees; `relative` limits are of each tensor's largest value. */
async function expectTensors(
  weights: FullWeights,
  field: 'param' | 'grad',
  { path, limit, relative }: { path: string; limit: number; relative: boolean },
): Promise<void> {
  const file = readSafetensors(path)
  const own = await download(weights, field)
  expect([...own.keys()].sort()).toEqual([...file.names].sort())
  for (const [name, values] of own) {
    const expected = file.read(name)
    expectClose(values, expected, relative ? limit * largest(expected) : limit, name)
  }
  file.close()
}

function flat(stats: readonly { readonly logprobs: Float32Array }[]): number[] {
  return stats.flatMap(({ logprobs }) => [...logprobs])
}

function largest(values: ArrayLike<number>): number {
  return Array.from(values).reduce((max, value) => Math.max(max, Math.abs(value)), 0)
}

function expectClose(actual: ArrayLike<number>, expected: ArrayLike<number>, limit: number, what = 'values'): void {
  expect(actual.length, what).toBe(expected.length)
  const worst = largest(Array.from(actual, (value, i) => value - expected[i]!))
  expect(worst, `${what}: worst difference`).toBeLessThanOrEqual(limit)
}
