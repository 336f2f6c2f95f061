// Rows that decode have the bits of prompts and of training (ARBOR_CUDA_EXACT=1, or nothing said on Hopper).

import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { CUDA, openGpu } from '../../test/emulator/gpu'
import { describeLocalEngine } from '../../test/engine/describe-local-engine'
import { bundledModel, DEFAULT_MODEL } from './bundled-models'
import { LocalEngine } from './local-engine'
import { causal, type Plan, tree } from './ops/cases/attention-plans'
import { Random } from './ops/cases/case'
import { checkDecoding, checkDivision, checkGathering } from './ops/check-attention'
import type { Backend } from './ops/ops'
import { toBf16 } from './ops/tensors.fixture'

const openExactGpu = (exact: string | null = '1') => openGpu('bf16', 0, exact)

/** The last rows of a long context. */
function late(tokens: number, length: number): Plan {
  const context = Array.from({ length }, (_, i) => length - 1 - i)
  return {
    name: `${tokens} rows behind others, ${length} in all`,
    tokens,
    slots: length,
    segments: [[0, tokens, 0, length]],
    context,
  }
}

describeLocalEngine(`${CUDA}, bf16, decoding in order`, () => openExactGpu())

describe(`decoding in order, on ${CUDA}`, () => {
  let backend: Backend
  beforeAll(async () => {
    backend = await openExactGpu()
  })
  afterAll(() => backend.close())

  it('what else is asked for is refused', async () => {
    await expect(openExactGpu('yes')).rejects.toThrow("ARBOR_CUDA_EXACT is 'yes'; it may be 0 or 1, or not set")
  })
  it('attention of a row alone has the bits it has in a prompt', () => checkDivision(backend, false))
  it.each([
    ['heads of 128, six to a key head', { heads: 12, kvHeads: 2, headDim: 128 }],
    ['heads of 32', { heads: 4, kvHeads: 4, headDim: 32 }],
    ['twenty heads to a key head', { heads: 20, kvHeads: 1, headDim: 64 }],
  ])('%s: over more keys than a block has at once, too', { timeout: 120_000 }, (_, heads) =>
    checkDivision(backend, false, { shapes: [heads], plans: [tree(), causal(97), late(6, 824)] }),
  )
  // Eight and twelve rows to a block on the emulated GPU, three, six and twelve on a card, where three heads are of 64.
  it.each([
    ['heads of 64, three to a key head', { heads: 9, kvHeads: 3, headDim: 64 }],
    ['heads of 32', { heads: 4, kvHeads: 4, headDim: 32 }],
    ['heads of 64, eleven to a key head', { heads: 22, kvHeads: 2, headDim: 64 }],
  ])('%s: in a crowd, too', (_, heads) => checkGathering(backend, heads, CUDA === 'cuda' ? [7, 16, 40] : [1, 2]))
  it('attention of a row is that whoever decodes beside it', () => checkDecoding(backend))

  // Blocks of 64, 32 and 16 outputs, of which the clock chooses; more than 64 rows, which are cuBLASLt's; adapters inside the product in training and
  // added behind it (of 64 outputs). What large values leave when they cancel shows the order of a sum.
  it.each([
    [64, 2304, 16],
    [320, 768, 0],
    [1280, 128, 16],
    [96, 448, 8],
    [96, 160, 24],
  ])('a linear of %i outputs and %i inputs has the bits it has in training, adapter of rank %i', async (out, inner, rank) => {
    const inside = 2 * out >= inner
    const values = (shape: readonly [number, number], seed: number, cancels: boolean) => {
      const data = new Random(seed).normal(shape).data as Float32Array
      const [rows, width] = shape
      if (cancels) for (let row = 0; row < rows; row++) data[row * width + width - 1] = -(data[row * width] = 1 + (row % 3))
      return data
    }
    const large = (data: Float32Array, width: number) => {
      for (let at = 0; at < data.length; at += width) data[at] = data[at + width - 1] = 1e4
      return data
    }
    const outputs = async (rows: number, decode: boolean) => {
      const arena = backend.arena(16 << 20)
      const tensor = (shape: readonly number[], data: Float32Array | Uint16Array, dtype: 'f32' | 'bf16' = 'f32') => {
        const made = arena.tensor(shape, dtype)
        backend.upload(made, data)
        return made
      }
      const x = tensor([150, inner], toBf16(large(values([150, inner], 3, false), inner)), 'bf16').rows(0, rows)
      const adapter = () => {
        const a = values([rank, inner], 1, true)
        if (inside) a.copyWithin((rank - 1) * inner, 0, inner) // x aᵀ is the same at both ends, and so is b but for its sign
        return {
          rank,
          scale: 1.5,
          parts: [out],
          a: tensor([rank, inner], a),
          b: tensor([out, rank], values([out, rank], 2, inside)),
        }
      }
      const loras = rank === 0 ? [] : [{ rowStart: 0, rowCount: rows, ...adapter(), xa: arena.tensor([rows, rank]) }]
      const y = arena.tensor([rows, out], 'bf16')
      const weight = backend.prepareWeight([out, inner], values([out, inner], 4, true), { adapted: rank > 0 })
      if (decode) backend.ops.layAdapters([{ weight, adapters: loras }])
      backend.ops.linear({ y, x, weight, loras, ...(decode ? { decode, laid: true } : {}) })
      const all = await Promise.all([y, ...loras.map(({ xa }) => xa)].map((one) => backend.download(one)))
      arena.close()
      return all
    }
    const trained = await outputs(150, false)
    for (const rows of [1, 8, 11, 32, 64, 65]) {
      const expected = trained.map((all) => all.slice(0, (rows * all.length) / 150))
      expect(await outputs(rows, true), `${rows} rows`).toEqual(expected)
    }
    expect(trained[0]!.filter((value) => value !== 0).length).toBeGreaterThan(0.99 * trained[0]!.length)
  })
})

// Heads that tensor cores take.
describe(`${DEFAULT_MODEL} on ${CUDA}, bf16`, () => {
  const sampling = { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 }
  const lora = { rank: 16, alpha: 32, targets: ['q_proj', 'v_proj', 'o_proj', 'up_proj', 'down_proj'], dropout: 0 } as const
  const step = { temperature: 1, learningRate: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 }
  const towards = (logprobs: Float32Array) => ({ dLogprobs: new Float32Array(logprobs.length).fill(-1) })
  /** The largest difference between the log-probability that a token was sampled with and the one it is trained with. */
  const largestGap = async (open: () => Promise<Backend>) => {
    const engine = new LocalEngine({ backend: await open(), kvCacheTokens: 2048 })
    await engine.load(bundledModel(DEFAULT_MODEL)!)
    await engine.openPolicy('policy', { lora, seed: 3 })
    await engine.trainStep('policy', [{ prompt: [300, 301], completion: [302, 303] }], towards, step)
    const prompts = [90, 70].map((length, p) => Array.from({ length }, (_, i) => 300 + ((i * i + p * i) % 700)))
    const asked = prompts.map((prompt) => ({
      policy: 'policy',
      prompt,
      seeds: [3, 4],
      maxNewTokens: 12,
      sampling,
      stopTokenIds: [],
    }))
    const answers = await Promise.all(asked.map((one) => engine.generate(one)))
    const all = answers.flatMap((some, p) => some.map((one) => ({ prompt: prompts[p]!, completion: one.tokens, one })))
    const trained = await engine.logprobs('policy', all, { temperature: 1 })
    await engine.close()
    return Math.max(...all.flatMap(({ one }, i) => one.logprobs.map((value, t) => Math.abs(value - trained[i]!.logprobs[t]!))))
  }
  it('what is trained has the log-probabilities of what was sampled but for the last bits of two logsumexps', {
    timeout: 240_000,
  }, async () => {
    const hopper = process.env['ARBOR_EMULATOR_CAPABILITY'] === undefined
    const exact = await largestGap(() => openExactGpu(hopper ? null : '1'))
    expect(exact).toBeLessThan(2e-6)
    expect(await largestGap(() => openGpu('bf16'))).toBeGreaterThan(10 * exact)
  })
})
