import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { Completion, GenerateRequest, StepConfig } from './engine'
import { FakeEngine } from './fake-engine'
import { addToken, emptyMask } from './sampling'

const spec = { lora: { rank: 1, alpha: 1, targets: ['q_proj'], dropout: 0 }, seed: 0 } as const
const sampling = { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 }
const config = { temperature: 1, learningRate: 1, beta1: 0, beta2: 0, eps: 0, weightDecay: 0, maxGradNorm: 0 } as StepConfig
const request = (values: Partial<GenerateRequest> = {}): GenerateRequest => ({
  policy: null,
  prompt: [1],
  seeds: [1, 2],
  maxNewTokens: 50,
  sampling,
  stopTokenIds: [257],
  ...values,
})

describe('FakeEngine', () => {
  it('answers by seed, ends at a stop token, and keeps to the limit', async () => {
    const engine = new FakeEngine()
    const [one, two] = await engine.generate(request())
    expect(one!.tokens).not.toEqual(two!.tokens)
    expect(one!.tokens.at(-1)).toBe(257)
    expect((await engine.generate(request()))[0]).toEqual(one)
    const [short] = await engine.generate(request({ maxNewTokens: 2 }))
    expect(short).toMatchObject({ tokens: one!.tokens.slice(0, 2), finishReason: 'length' })
  })

  it('goes by its script as far as that is allowed, then by anything that is', async () => {
    const engine = new FakeEngine({ script: () => [3, 4] })
    const allowedTokens = (_: number, tokens: readonly number[]) => {
      const mask = emptyMask(258)
      for (const token of tokens.length < 4 ? [3, 5] : [257]) addToken(mask, token)
      return mask
    }
    const [{ tokens, finishReason }] = (await engine.generate(request(), { allowedTokens })) as [Completion]
    expect(tokens[0]).toBe(3)
    expect(tokens.slice(1, 4).every((token) => token === 3 || token === 5)).toBe(true)
    expect([tokens.length, tokens[4], finishReason]).toEqual([5, 257, 'stop'])
  })

  it('follows a script, streams, stops when told to, and aborts', async () => {
    const engine = new FakeEngine({ script: ({ prompt }, index) => [...prompt, index, 9, 9, 9] })
    const heard: number[][] = []
    const onTokens = (index: number, tokens: readonly number[]) => {
      if (index === 1) heard.push([...tokens])
      return tokens.length === 3 ? ('stop' as const) : undefined
    }
    const completions = await engine.generate(request({ prompt: [5] }), { onTokens })
    expect(completions.map(({ tokens, finishReason }) => [...tokens, finishReason])).toEqual([
      [5, 0, 9, 'stop'],
      [5, 1, 9, 'stop'],
    ])
    expect(heard).toEqual([[5], [5, 1], [5, 1, 9]])
    const aborted = await engine.generate(request(), { signal: AbortSignal.abort() })
    expect(aborted[0]).toMatchObject({ tokens: [], finishReason: 'abort' })
  })

  it('a step sees the logprobs that were sampled, bumps the version, and the version is saved', async () => {
    const engine = new FakeEngine()
    await engine.openPolicy('p', spec)
    const [completion] = await engine.generate(request({ policy: 'p' }))
    const row = { prompt: [1], completion: completion!.tokens }
    let seen: number[] = []
    const loss = (logprobs: Float32Array) => {
      seen = [...logprobs]
      return { dLogprobs: new Float32Array(logprobs.length).fill(3) }
    }
    const stats = await engine.trainStep('p', [row], loss, config)
    expect(seen).toEqual(completion!.logprobs)
    expect(stats).toMatchObject({ policyVersion: 1, gradNorm: expect.closeTo(3 * Math.sqrt(seen.length), 5) })
    expect((await engine.logprobs('p', [row]))[0]!.logprobs).not.toEqual(Float32Array.from(seen))
    const dir = mkdtempSync(join(tmpdir(), 'arbor-fake-'))
    await engine.savePolicy('p', dir)
    expect(await engine.openPolicy('q', { ...spec, checkpoint: dir })).toMatchObject({ policyVersion: 1 })
    rmSync(dir, { recursive: true })
    await engine.closePolicy('p')
    await expect(engine.generate(request({ policy: 'p' }))).rejects.toThrow(/no policy "p"/)
    expect(engine.calls.map(({ method }) => method)).toEqual([
      'openPolicy',
      'generate',
      'trainStep',
      'logprobs',
      'savePolicy',
      'openPolicy',
      'closePolicy',
      'generate',
    ])
  })
})
