// What a LocalEngine promises, checked on a tiny Llama with an adapter, on whatever backend is given.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { Completion, GenerateRequest, StepConfig } from '../../src/engine/engine'
import { LocalEngine, type LocalEngineOptions } from '../../src/engine/local-engine'
import { loadLora, readLoraSpec } from '../../src/engine/lora-file'
import { Model } from '../../src/engine/model'
import type { Backend, Tensor } from '../../src/engine/ops/ops'
import { addToken, emptyMask } from '../../src/engine/sampling'
import { goldenFolder, openGolden } from '../golden/engine/open-golden'

const FOLDER = goldenFolder('llama')
const ADAPTER = join(FOLDER, 'adapter')
const SOURCE = { name: 'tiny', kind: 'folder', path: FOLDER } as const
const GREEDY = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 }
const SAMPLED = { ...GREEDY, temperature: 1 }
const STEP: StepConfig = {
  temperature: 1,
  learningRate: 0.01,
  beta1: 0.9,
  beta2: 0.999,
  eps: 1e-8,
  weightDecay: 0,
  maxGradNorm: 1,
}

const range = (count: number, start = 0) => Array.from({ length: count }, (_, i) => start + i)
const request = (values: Partial<GenerateRequest>): GenerateRequest => ({
  policy: 'adapter',
  prompt: [3, 1, 4, 1, 5, 9, 2, 6],
  seeds: [1],
  maxNewTokens: 12,
  sampling: SAMPLED,
  stopTokenIds: [],
  ...values,
})

/** Tokens and logprobs to the last bit; where it was cached or what it ran beside is left out. */
const bits = (completions: readonly Completion[]) =>
  completions.map(({ tokens, logprobs, plainLogprobs, finishReason }) => ({ tokens, logprobs, plainLogprobs, finishReason }))

/**
 * Declares the tests; `open` gives a fresh backend each time. Where it can't, they are skipped with its reason. `decodesApart`: rows that decode have
 * kernels of their own, so tokens that are computed again as a prompt differ in their last bits.
 */
export function describeLocalEngine(name: string, open: () => Promise<Backend>, { decodesApart = false } = {}): void {
  describe(`LocalEngine on ${name}`, () => {
    let missing: string | null = null
    beforeAll(async () => {
      await open().then(
        (backend) => backend.close(),
        (error: Error) => void (missing = error.message),
      )
    })
    beforeEach((context) => {
      if (missing !== null) context.skip(missing)
    })

    const engines: LocalEngine[] = []
    const start = async (options: Omit<LocalEngineOptions, 'backend' | 'device'> = {}) => {
      const engine = new LocalEngine({ ...options, backend: await open() })
      engines.push(engine)
      await engine.load(SOURCE)
      await engine.openPolicy('adapter', { lora: readLoraSpec(ADAPTER), seed: 0, checkpoint: ADAPTER })
      return engine
    }
    afterEach(async () => {
      for (const engine of engines.splice(0)) await engine.close()
    })

    declareDecoding(start, open, decodesApart)
    declareSharing(start, decodesApart)
    declareTraining(start)
    declareFaults(start, open)
  })
}

type Start = (options?: Omit<LocalEngineOptions, 'backend' | 'device'>) => Promise<LocalEngine>

function declareDecoding(start: Start, open: () => Promise<Backend>, decodesApart: boolean): void {
  describe('decoding', () => {
    let slow: Awaited<ReturnType<typeof slowModel>> | null = null
    const slowLogprobs = async (tokens: readonly number[], adapted: boolean) => {
      slow ??= await slowModel(await open())
      return slow.lastLogprobs(tokens, adapted)
    }
    afterAll(() => slow?.close())

    it.each([null, 'adapter'])('greedy is the argmax of a whole forward pass for every token (policy %s)', async (policy) => {
      const engine = await start()
      const [completion] = await engine.generate(request({ policy, sampling: GREEDY, topLogprobs: 3 }))
      const tokens = [...request({}).prompt]
      for (const [i, token] of completion!.tokens.entries()) {
        const logprobs = await slowLogprobs(tokens, policy !== null)
        expect(token).toBe(logprobs.indexOf(Math.max(...logprobs)))
        expect(completion!.logprobs[i]).toBeCloseTo(logprobs[token]!, 4)
        const best = [...logprobs.keys()].sort((a, b) => logprobs[b]! - logprobs[a]!).slice(0, 3)
        expect(completion!.topLogprobs![i]!.map((alternative) => alternative.token)).toEqual(best)
        expect(completion!.topLogprobs![i]![2]!.logprob).toBeCloseTo(logprobs[best[2]!]!, 4)
        tokens.push(token)
      }
      expect(completion!.tokens).toHaveLength(12)
      expect(completion!.finishReason).toBe('length')
    })

    it('stored logprobs are those of the training pass, at the temperature that sampled', async () => {
      const engine = await start()
      const sampling = { ...SAMPLED, temperature: 0.7 }
      const completions = await engine.generate(request({ seeds: range(6), sampling, maxNewTokens: 20 }))
      const rows = completions.map(({ tokens }) => ({ prompt: request({}).prompt, completion: tokens }))
      const trained = await engine.logprobs('adapter', rows, { temperature: 0.7 })
      const plain = await engine.logprobs('adapter', rows, { temperature: 1 })
      let worst = 0
      for (const [i, completion] of completions.entries())
        for (let t = 0; t < completion.tokens.length; t++) {
          worst = Math.max(worst, Math.abs(completion.logprobs[t]! - trained[i]!.logprobs[t]!))
          worst = Math.max(worst, Math.abs(completion.plainLogprobs[t]! - plain[i]!.logprobs[t]!))
        }
      expect(worst).toBeLessThan(2e-6) // the last bits of two logsumexps, in every precision
    })

    it('samples among the allowed tokens; logprobs are those of the whole vocabulary, and whoever runs beside is not touched', async () => {
      const engine = await start()
      const beside = request({ seeds: [8, 9], maxNewTokens: 20 })
      const alone = bits(await engine.generate(beside))
      const every = (step: number) => range(256).filter((token) => token % step === 1)
      for (const sampling of [SAMPLED, GREEDY, { ...SAMPLED, topK: 3, topP: 0.9, minP: 0.01, repetitionPenalty: 1.2 }]) {
        const allowedTokens = async (index: number, tokens: readonly number[]) => {
          if (tokens.length === 5) return null
          await new Promise((resolve) => setTimeout(resolve, index))
          const mask = emptyMask(256)
          for (const token of every(tokens.length === 3 ? 255 : 20)) addToken(mask, token)
          return mask
        }
        const masked = request({ seeds: range(4), sampling, topLogprobs: 1 })
        const [constrained, free] = await Promise.all([engine.generate(masked, { allowedTokens }), engine.generate(beside)])
        expect(bits(free)).toEqual(alone)
        const rows = constrained.map(({ tokens }) => ({ prompt: masked.prompt, completion: tokens }))
        const trained = await engine.logprobs('adapter', rows, { temperature: 1 })
        for (const [i, { tokens, logprobs }] of constrained.entries()) {
          expect(tokens.filter((_, at) => at !== 5).every((token) => token % 20 === 1)).toBe(true)
          expect(tokens[3]).toBe(1)
          for (const at of tokens.keys()) expect(logprobs[at]).toBeCloseTo(trained[i]!.logprobs[at]!, decodesApart ? 1 : 4)
        }
      }
    })

    it('an error of allowedTokens ends its own request; the engine goes on', async () => {
      const engine = await start()
      const failed = engine.generate(request({}), {
        allowedTokens: (_, tokens) => {
          if (tokens.length === 4) throw new Error('no grammar')
          return null
        },
      })
      const beside = engine.generate(request({ seeds: [3] }))
      await expect(failed).rejects.toThrow('no grammar')
      expect(bits(await beside)).toEqual(bits(await engine.generate(request({ seeds: [3] }))))
      expect(await engine.status()).toMatchObject({ running: 0, waiting: 0 })
    })

    it('a repetition penalty counts prompt and completion', async () => {
      const engine = await start()
      const sampling = { ...GREEDY, repetitionPenalty: 1e6 } // no token a second time, while others are left
      const [completion] = await engine.generate(request({ sampling, maxNewTokens: 30 }))
      const all = [...request({}).prompt, ...completion!.tokens]
      expect(new Set(completion!.tokens).size).toBe(30)
      expect(completion!.tokens.some((token) => request({}).prompt.includes(token))).toBe(false)
      expect(all).toHaveLength(38)
    })
  })
}

function declareSharing(start: Start, decodesApart: boolean): void {
  it('a seed gives the same bits alone, in a crowd, and from the cache', async () => {
    const startWithTwo = async (options = {}) => {
      const engine = await start(options)
      await engine.openPolicy('other', { lora: { ...readLoraSpec(ADAPTER), rank: 3 }, seed: 5 })
      const towards = (logprobs: Float32Array) => ({ dLogprobs: new Float32Array(logprobs.length).fill(-1) })
      await engine.trainStep('other', [{ prompt: [1, 2, 3], completion: [4, 5] }], towards, STEP)
      return engine
    }
    const engine = await startWithTwo()
    const prompts = [request({}).prompt, [3, 1, 4, 1, 5, 200], range(40)]
    const crowd = prompts.flatMap((prompt) =>
      [null, 'adapter', 'other'].map((policy) => request({ prompt, policy, seeds: range(3) })),
    )
    const together = await Promise.all(crowd.map((one) => engine.generate(one)))
    for (const [i, one] of crowd.entries()) {
      expect(bits(await engine.generate(one))).toEqual(bits(together[i]!)) // prompts are cached now
      const alone = await startWithTwo({ batchTokens: 7, batchSequences: 3 }) // another engine, prompts in parts of 7
      expect(bits(await alone.generate(one))).toEqual(bits(together[i]!))
      await alone.close()
    }
  })

  it('finds the prompt in the cache the second time', async () => {
    const engine = await start()
    const one = request({ prompt: range(30), seeds: [5] })
    expect((await engine.generate(one))[0]!.cachedTokens).toBe(0)
    expect((await engine.generate(one))[0]!.cachedTokens).toBe(29)
    expect((await engine.generate({ ...one, policy: null }))[0]!.cachedTokens).toBe(0)
    expect((await engine.status()).cachedTokens).toBe(60)
  })

  it('gives way under pressure and resumes with the same bits', async () => {
    const roomy = await start()
    const tight = await start({ kvCacheTokens: 60 })
    const requests = range(5).map((i) => request({ prompt: [i, 2, 3, 4], seeds: [i], maxNewTokens: 30 }))
    const expected = await Promise.all(requests.map((one) => roomy.generate(one)))
    const actual = await Promise.all(requests.map((one) => tight.generate(one)))
    const compared = (all: readonly Completion[]): unknown => (decodesApart ? all.map(({ tokens }) => tokens.length) : bits(all))
    expect(actual.map(compared)).toEqual(expected.map(compared))
    expect((await tight.status()).running).toBe(0)
  })
}

function declareTraining(start: Start): void {
  const towards = (logprobs: Float32Array) => ({ dLogprobs: new Float32Array(logprobs.length).fill(-1) })

  it('an update waits for what runs, holds up what comes after, and makes the cache forget', async () => {
    const engine = await start()
    const before = engine.generate(request({ seeds: [1, 2] }))
    const step = engine.trainStep('adapter', [{ prompt: [1, 2, 3], completion: [4, 5] }], towards, STEP)
    const after = engine.generate(request({ seeds: [1, 2] }))
    expect((await before).map(({ policyVersion }) => policyVersion)).toEqual([0, 0])
    expect((await step).policyVersion).toBe(1)
    expect((await after).map(({ policyVersion, cachedTokens }) => [policyVersion, cachedTokens])).toEqual([
      [1, 0],
      [1, 8],
    ])
    expect(bits(await after)).not.toEqual(bits(await before))
    expect((await engine.status()).policies).toEqual([{ name: 'adapter', policyVersion: 1 }])
  })

  it('tells what was computed so far', async () => {
    const engine = await start()
    expect(await engine.status()).toMatchObject({ work: { promptTokens: 0, sampledTokens: 0, trainedTokens: 0 } })
    await engine.generate(request({ seeds: [1, 2] }))
    await engine.generate(request({ seeds: [3], maxNewTokens: 4 })) // its prompt is cached, but for the last token
    await engine.trainStep('adapter', [{ prompt: [1, 2, 3], completion: [4, 5] }], towards, STEP)
    const { work, deviceMemory } = await engine.status()
    expect(work).toEqual({ promptTokens: 8 + 1, sampledTokens: 28, trainedTokens: 4 }) // the last token of a trained row predicts nothing
    if (deviceMemory) expect(deviceMemory.free).toBeLessThan(deviceMemory.total)
  })

  it('updates teach what the loss asks for, and a checkpoint goes on with the same bits', async () => {
    const engine = await start()
    const dir = mkdtempSync(join(tmpdir(), 'arbor-policy-'))
    try {
      const rows = [{ prompt: [1, 2, 3], completion: [10, 20, 30] }]
      for (let i = 0; i < 15; i++) await engine.trainStep('adapter', rows, towards, STEP)
      await engine.savePolicy('adapter', dir)
      const lora = readLoraSpec(ADAPTER)
      const opened = await engine.openPolicy('copy', { lora, seed: 9, checkpoint: dir })
      expect(opened.policyVersion).toBe(15)
      await Promise.all(['adapter', 'copy'].map((policy) => engine.trainStep(policy, rows, towards, STEP)))
      const ask = (policy: string) => engine.generate(request({ policy, prompt: [1, 2, 3], sampling: GREEDY, maxNewTokens: 3 }))
      const [one, two] = await Promise.all([ask('adapter'), ask('copy')])
      expect(one[0]!.tokens).toEqual([10, 20, 30])
      expect(bits(one)).toEqual(bits(two))
      const wrong = engine.openPolicy('wrong', { lora: { ...lora, rank: 99 }, seed: 0, checkpoint: dir })
      await expect(wrong).rejects.toThrow(/the checkpoint's adapter is r \d+.*asked for was r 99/)
    } finally {
      rmSync(dir, { recursive: true })
    }
  })

  it('what was saved may be opened to be asked only: same bits, no room for training', async () => {
    const engine = await start()
    const dir = mkdtempSync(join(tmpdir(), 'arbor-policy-'))
    try {
      await engine.trainStep('adapter', [{ prompt: [1, 2, 3], completion: [10, 20] }], towards, STEP)
      await engine.savePolicy('adapter', dir)
      const live = await engine.openPolicy('live', { lora: readLoraSpec(ADAPTER), seed: 0, checkpoint: dir })
      expect(await engine.openSaved('asked', dir)).toEqual(live)
      await engine.openSaved('peft', ADAPTER)
      const policies = ['adapter', 'live', 'asked', 'peft']
      const [trained, ...others] = await Promise.all(policies.map((policy) => engine.generate(request({ policy }))))
      expect(others.map(bits)).toEqual([bits(trained!), bits(trained!), expect.not.arrayContaining(bits(trained!))])
      expect(await engine.logits('asked', [1, 2, 3])).toEqual(await engine.logits('live', [1, 2, 3]))
      const rows = [{ prompt: [1], completion: [2] }]
      await expect(engine.trainStep('asked', rows, towards, STEP)).rejects.toThrow(/"asked" was opened to be asked only/)
      await expect(engine.savePolicy('asked', dir)).rejects.toThrow(/"asked" was opened to be asked only/)
      await expect(engine.openSaved('nothing', tmpdir())).rejects.toThrow(/neither an adapter .* nor a model/)
    } finally {
      rmSync(dir, { recursive: true })
    }
  })

  it('all logits of a sequence end in the logprobs that it is trained with', async () => {
    const engine = await start()
    const [prompt, completion] = [
      [3, 1, 4],
      [1, 5, 9, 2],
    ]
    const logits = await engine.logits('adapter', [...prompt, ...completion])
    const [stats] = await engine.logprobs('adapter', [{ prompt, completion }], { temperature: 1 })
    const vocab = logits.length / 7
    for (const [i, token] of completion.entries()) {
      const row = logits.subarray((prompt.length - 1 + i) * vocab, (prompt.length + i) * vocab)
      const sum = row.reduce((total, value) => total + Math.exp(value), 0)
      expect(row[token]! - Math.log(sum)).toBeCloseTo(stats!.logprobs[i]!, 4)
    }
  })

  it('a fresh policy is the base', async () => {
    const engine = await start()
    await engine.openPolicy('fresh', { lora: readLoraSpec(ADAPTER), seed: 3 })
    const [fresh, base] = await Promise.all(['fresh', null].map((policy) => engine.generate(request({ policy }))))
    expect(fresh![0]!.tokens).toEqual(base![0]!.tokens)
    await engine.closePolicy('fresh')
    await expect(engine.generate(request({ policy: 'fresh' }))).rejects.toThrow(/no policy "fresh"/)
  })

  it('a loss that throws changes nothing', async () => {
    const engine = await start()
    const before = await engine.generate(request({}))
    const step = engine.trainStep(
      'adapter',
      [{ prompt: [1], completion: [2] }],
      () => {
        throw new Error('reward is NaN')
      },
      STEP,
    )
    await expect(step).rejects.toThrow('reward is NaN')
    expect(bits(await engine.generate(request({})))).toEqual(bits(before))
    expect((await engine.status()).policies[0]!.policyVersion).toBe(0)
  })
}

function declareFaults(start: Start, open: () => Promise<Backend>): void {
  it('an abort ends a generation within a step and frees its slots', async () => {
    const engine = await start()
    const controller = new AbortController()
    const onTokens = (_: number, tokens: readonly number[]) => void (tokens.length === 5 && controller.abort())
    const completions = await engine.generate(request({ maxNewTokens: 100 }), { signal: controller.signal, onTokens })
    expect(completions[0]).toMatchObject({ finishReason: 'abort' })
    expect(completions[0]!.tokens).toHaveLength(5)
    expect(await engine.status()).toMatchObject({ running: 0, waiting: 0 })
  })

  it('says what is wrong with a request', async () => {
    const engine = await start({ kvCacheTokens: 100 })
    const fails = (values: Partial<GenerateRequest>) => expect(engine.generate(request(values))).rejects
    await fails({ prompt: range(128) }).toMatchObject({ code: 'context_length_exceeded' })
    await fails({ prompt: range(128) }).toThrow(/maximum context length is 128 tokens; the prompt alone has 128/)
    await fails({ prompt: [] }).toThrow(/no token/)
    await fails({ prompt: [256] }).toThrow(/token 256.*ids 0 to 255/)
    await fails({ policy: 'adaptor' }).toThrow(/no policy "adaptor"\. Did you mean "adapter"\?/)
    await fails({ seeds: [1, Number.NaN] }).toThrow(/A seed is NaN/)
    await fails({ sampling: { ...SAMPLED, topP: 1.5 } }).toThrow(/topP is 1.5; it must be between 0 and 1/)
    await fails({ sampling: { ...SAMPLED, temperature: -1 } }).toThrow(/temperature is -1; it must be a number from 0 up/)
    await fails({ prompt: range(90), maxNewTokens: 30 }).toThrow(/KV cache, which has 100/)
    expect((await engine.generate(request({ maxNewTokens: 0 })))[0]).toMatchObject({ tokens: [], finishReason: 'length' })
  })

  it('ends at the context when more tokens are asked for than fit', async () => {
    const engine = await start()
    const [completion] = await engine.generate(request({ prompt: range(120), maxNewTokens: 500 }))
    expect(completion).toMatchObject({ finishReason: 'length' })
    expect(completion!.tokens).toHaveLength(8)
  })

  it('closing rejects what runs and all that comes after', async () => {
    const engine = await start()
    const running = engine.generate(request({ maxNewTokens: 100 }), { onTokens: () => void engine.close() })
    await expect(running).rejects.toThrow(/was closed/)
    await engine.close()
    await expect(engine.generate(request({}))).rejects.toThrow(/was closed/)
    const early = new LocalEngine({ backend: await open() })
    await expect(early.generate(request({}))).rejects.toThrow(/No model is loaded/)
    await early.close()
  })
}

/** The obvious way: a forward pass over the whole text, nothing cached, nothing shared. */
async function slowModel(backend: Backend) {
  const golden = openGolden('llama')
  const model = Model.load(backend, golden)
  golden.weights.close()
  const lora = loadLora(backend, model.config, ADAPTER)
  const lastLogprobs = async (ids: readonly number[], adapted: boolean): Promise<number[]> => {
    const arena = backend.arena(1 << 20)
    const ints = (data: readonly number[], shape: readonly number[] = [data.length]): Tensor => {
      const tensor = arena.tensor(shape, 'i32')
      backend.upload(tensor, Int32Array.from(data))
      return tensor
    }
    const tokens = ids.length
    const rows = range(tokens)
    const plan = { segments: ints([0, tokens, 0, tokens], [1, 4]), context: ints(rows), segmentCount: 1 }
    const policies = adapted ? [{ policy: 'adapter', rowStart: 0, rowCount: tokens }] : []
    const batch = { tokens, ids: ints(ids), positions: ints(rows), slots: ints(rows), plan, policies }
    const hidden = model.forward(batch, model.kvStores(tokens, arena), { arena, loras: () => lora })
    const out = arena.tensor([1, model.config.vocab])
    model.logits(hidden.rows(tokens - 1, 1), out)
    const logits = [...(await backend.download(out))]
    arena.close()
    const lse = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0))
    return logits.map((logit) => logit - lse)
  }
  const close = () => {
    lora.close()
    model.close()
    backend.close()
  }
  return { lastLogprobs, close }
}
