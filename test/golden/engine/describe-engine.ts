// The engine against transformers + peft + PyTorch (make.py), on whatever backend is given: logits, logprobs, every adapter
// gradient, ten updates; and the promises that need a whole model: prefix trees, packs, checkpoints.

import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { LossGradient, StepConfig, TrainSequence } from '../../../src/engine/engine'
import type { LoraWeights } from '../../../src/engine/lora'
import { loadLora, saveLora } from '../../../src/engine/lora-file'
import { Model } from '../../../src/engine/model'
import type { Backend, Tensor } from '../../../src/engine/ops/ops'
import { buildPacks } from '../../../src/engine/prefix-tree'
import { readSafetensors } from '../../../src/engine/safetensors'
import { learningRateAt } from '../../../src/engine/schedule'
import { Trainer } from '../../../src/engine/trainer'
import { type GoldenModel, goldenFolder, openGolden } from './open-golden'

interface Golden {
  readonly sequences: readonly TrainSequence[]
  readonly weights: readonly [readonly number[], readonly number[]] // of logprobs, of entropies
  readonly steps: Omit<StepConfig, 'learningRate'> & { base: number; warmup: number; total: number }
  readonly 'T1.0': Statistics
  readonly 'T0.7': Statistics
  readonly training: { losses: readonly number[]; gradNorms: readonly number[]; learningRates: readonly number[] }
}
interface Statistics {
  readonly logprobs: readonly number[]
  readonly entropies: readonly number[]
}

/**
 * How far we may be from PyTorch's f32: values absolutely, gradients and training relative to the largest value, packs from each other. In bf16 each
 * operand of each product is off by up to 2^-9 of itself. Ten products in a row and the largest of thousands of values make that 0.08 in
 * logits of up to 10 and 5 % of a gradient, measured; the limits are twice that. Packs part by the roundings that fall the other way when f32
 * sums are ordered differently.
 */
const LIMITS = {
  f32: { values: 1e-4, gradient: 1e-4, training: 1e-4, packs: 2e-5 },
  bf16: { values: 0.15, gradient: 0.1, training: 0.08, packs: 0.015 },
  /** Activations too, as on a GPU: each of their roundings counts once more. */
  'bf16 throughout': { values: 0.2, gradient: 0.15, training: 0.16, packs: 0.04 },
}

/** Declares the tests. `open` is called once per model. */
export function describeEngine(name: string, open: () => Promise<Backend>, precision: keyof typeof LIMITS): void {
  for (const architecture of ['llama', 'qwen2'] as const)
    describe(`${name}: tiny ${architecture}`, { timeout: 60_000 }, () =>
      declareTests(architecture, { open, limits: LIMITS[precision] }),
    )
}

type Setting = { readonly open: () => Promise<Backend>; readonly limits: (typeof LIMITS)[keyof typeof LIMITS] }

function declareTests(architecture: GoldenModel, { open: openBackend, limits }: Setting): void {
  const folder = goldenFolder(architecture)
  const golden = JSON.parse(readFileSync(join(folder, 'golden.json'), 'utf8')) as Golden
  const tensors = readSafetensors(join(folder, 'tensors.safetensors'))
  const weighted: LossGradient = () => ({
    dLogprobs: Float32Array.from(golden.weights[0]),
    dEntropies: Float32Array.from(golden.weights[1]),
  })
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
    tensors.close()
  })
  const adapter = () => loadLora(backend, model.config, join(folder, 'adapter'))
  const gradientOf = async (lora: LoraWeights, packTokens?: number) => {
    await trainer.gradients(lora, golden.sequences, weighted, { temperature: 1, ...(packTokens && { packTokens }) })
    return downloadModules(lora, 'grad')
  }

  it.each([
    ['base', false],
    ['adapter', true],
  ])('the %s gives the same logits', async (kind, withAdapter) => {
    const lora = withAdapter ? adapter() : null
    for (const i of [0, 5]) {
      const { prompt, completion } = golden.sequences[i]!
      const logits = await plainLogits({ backend, model, lora }, [...prompt, ...completion])
      expectClose(logits, tensors.read(`${kind}.logits.${i}`), limits.values)
    }
  })

  it.each(['T1.0', 'T0.7'] as const)('logprobs, entropies and every adapter gradient agree at %s', async (key) => {
    const lora = adapter()
    const temperature = Number(key.slice(1))
    const stats = await trainer.logprobs(lora, golden.sequences, { temperature })
    expectClose(
      stats.flatMap(({ logprobs }) => [...logprobs]),
      golden[key].logprobs,
      limits.values,
    )
    expectClose(
      stats.flatMap(({ entropies }) => [...entropies]),
      golden[key].entropies,
      limits.values,
    )
    await trainer.gradients(lora, golden.sequences, weighted, { temperature })
    for (const [module, gradient] of await downloadModules(lora, 'grad')) {
      const expected = tensors.read(`${key}.${module}`)
      expectClose(gradient, expected, limits.gradient * largest(expected), module)
    }
  })

  it('ten updates agree: losses, gradient norms, final adapter', async () => {
    const lora = adapter()
    const { training, steps } = golden
    const log = await train({ lora, trainer, golden }, 0, steps.total)
    for (const [step, loss] of log.losses.entries())
      expectClose([loss], [training.losses[step]!], limits.training * Math.abs(training.losses[step]!), `loss ${step}`)
    for (const [step, norm] of log.gradNorms.entries())
      expectClose([norm], [training.gradNorms[step]!], limits.training * training.gradNorms[step]!, `norm ${step}`)
    expectClose(log.learningRates, training.learningRates, 1e-12)
    const final = readSafetensors(join(folder, 'final.safetensors'))
    for (const [module, values] of await downloadModules(lora, 'param'))
      expectClose(values, final.read(module), limits.training * largest(final.read(module)), module)
    final.close()
  })

  it('the prefix tree and every pack size give the gradient of the plain batch', async () => {
    const lora = adapter()
    const shared = buildPacks(golden.sequences, 8192)
    expect(shared.tokens).toBeLessThan(shared.tokensUnshared / 2) // the sharing did happen
    const plain = await gradientOf(lora, 1) // every sequence in a pack of its own
    for (const packTokens of [25, 40, 8192]) {
      for (const [module, gradient] of await gradientOf(lora, packTokens))
        expectClose(gradient, plain.get(module)!, limits.packs * largest(plain.get(module)!), `${packTokens} ${module}`)
    }
  })

  it('a saved policy continues bit for bit', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'arbor-lora-'))
    try {
      const lora = adapter()
      await train({ lora, trainer, golden }, 0, 4)
      await saveLora(lora, dir)
      const loaded = loadLora(backend, model.config, dir)
      expect([loaded.step, loaded.policyVersion, loaded.spec]).toEqual([4, 4, lora.spec])
      for (const field of ['param', 'm', 'v'] as const)
        expect(await downloadModules(loaded, field)).toEqual(await downloadModules(lora, field))
      const uninterrupted = await train({ lora, trainer, golden }, 4, 7)
      expect(await train({ lora: loaded, trainer, golden }, 4, 7)).toEqual(uninterrupted)
      expect(await downloadModules(loaded, 'param')).toEqual(await downloadModules(lora, 'param'))
    } finally {
      rmSync(dir, { recursive: true })
    }
  })
}

/** The steps of make.py's train(): minus the sum of w times the ratio to the first step's logprobs, over the number of tokens. */
async function train(run: { lora: LoraWeights; trainer: Trainer; golden: Golden }, from: number, to: number) {
  const { lora, trainer, golden } = run
  const { base, warmup, total, ...steps } = golden.steps
  const [weights] = golden.weights
  const old = (await trainer.logprobs(from === 0 ? lora : null, golden.sequences, steps)).flatMap(({ logprobs }) => [...logprobs])
  const log = { losses: [] as number[], gradNorms: [] as number[], learningRates: [] as number[] }
  for (let step = from; step < to; step++) {
    const learningRate = learningRateAt(step, { type: 'linear', base, warmup, total })
    const loss: LossGradient = (logprobs) => {
      const dLogprobs = logprobs.map((lp, i) => (-weights[i]! * Math.exp(lp - old[i]!)) / logprobs.length)
      log.losses.push(dLogprobs.reduce((sum, value) => sum + value, 0)) // each token's loss equals its derivative
      return { dLogprobs }
    }
    log.gradNorms.push((await trainer.trainStep(lora, golden.sequences, loss, { ...steps, learningRate })).gradNorm)
    log.learningRates.push(learningRate)
  }
  return log
}

/** Logits [ids.length * vocab] of one plain sequence. */
async function plainLogits(on: { backend: Backend; model: Model; lora: LoraWeights | null }, ids: readonly number[]) {
  const { backend, model, lora } = on
  const arena = backend.arena(1 << 20)
  const ints = (data: Int32Array, shape: readonly number[] = [data.length]): Tensor => {
    const tensor = arena.tensor(shape, 'i32')
    backend.upload(tensor, data)
    return tensor
  }
  const rows = Int32Array.from(ids, (_, i) => i)
  const hidden = model.forward(
    {
      tokens: ids.length,
      ids: ints(Int32Array.from(ids)),
      positions: ints(rows),
      slots: ints(rows),
      plan: { segments: ints(Int32Array.of(0, ids.length, 0, ids.length), [1, 4]), context: ints(rows), segmentCount: 1 },
      policies: lora ? [{ policy: 'p', rowStart: 0, rowCount: ids.length }] : [],
    },
    model.kvStores(ids.length, arena),
    { arena, loras: () => lora! },
  )
  const out = arena.tensor([ids.length, model.config.vocab])
  model.logits(hidden, out)
  const logits = await backend.download(out)
  arena.close()
  return logits
}

/** Every module's A and B (or their gradients or moments) by peft's names. */
async function downloadModules(lora: LoraWeights, field: 'param' | 'grad' | 'm' | 'v') {
  const out = new Map<string, Float32Array>()
  for (const { name, a, b } of lora.modules) {
    out.set(`${name}.lora_A.weight`, (await lora.backend.download(a[field])) as Float32Array)
    out.set(`${name}.lora_B.weight`, (await lora.backend.download(b[field])) as Float32Array)
  }
  return out
}

function largest(values: ArrayLike<number>): number {
  return Array.from(values).reduce((max, value) => Math.max(max, Math.abs(value)), 0)
}

function expectClose(actual: ArrayLike<number>, expected: ArrayLike<number>, limit: number, what = 'values'): void {
  expect(actual.length, what).toBe(expected.length)
  const worst = largest(Array.from(actual, (value, i) => value - expected[i]!))
  expect(worst, `${what}: worst difference`).toBeLessThanOrEqual(limit)
}
