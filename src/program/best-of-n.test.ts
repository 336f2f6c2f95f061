import { describe, expect, expectTypeOf, it } from 'vitest'
import { BestOfN } from './best-of-n'
import { context, type TraceEntry } from './context'
import { DummyLM } from './dummy-lm'
import { Predict } from './predict'

const qa = () => new Predict('question -> answer')
const lengthOf = (_: { question: string }, { answer }: { answer: string }) => answer.length

describe('BestOfN', () => {
  it('keeps the best of its attempts, each with a rollout id of its own at temperature 1', async () => {
    const asked: unknown[] = []
    class Watched extends DummyLM {
      override copy(changes = {}) {
        asked.push(changes)
        return super.copy(changes)
      }
    }
    let given = 0
    const lm = new Watched(() => ({ answer: ['bb', 'a', 'cc'][given++]! }), { rolloutId: 7 })
    const best = new BestOfN({ module: qa(), N: 3, rewardFn: lengthOf, threshold: null })
    const trace: TraceEntry[] = []
    const prediction = await context({ lm, trace }, () => best.call({ question: 'q' }))
    expectTypeOf(prediction.answer).toEqualTypeOf<string>()
    expect(prediction.answer).toBe('bb') // of equals the first
    expect(asked).toEqual([7, 8, 9].map((rolloutId) => ({ rolloutId, temperature: 1 })))
    expect(trace.map((entry) => entry.prediction?.answer)).toEqual(['bb'])
  })

  it('stops at the threshold', async () => {
    let given = 0
    const lm = new DummyLM(() => ({ answer: 'x'.repeat(++given) }))
    const best = new BestOfN({ module: qa(), N: 9, rewardFn: lengthOf, threshold: 2 })
    expect((await context({ lm }, () => best.call({ question: 'q' }))).answer).toBe('xx')
    expect(given).toBe(2)
  })

  it('bears failing attempts, but says so; and throws when none worked', async () => {
    let given = 0
    const warnings: string[] = []
    const settings = {
      lm: new DummyLM(() => ({ answer: String(given++) })),
      onWarning: (text: string) => void warnings.push(text),
    }
    const rewardFn = (_: unknown, { answer }: { answer: string }) => {
      if (answer === '0') throw new Error('not this one')
      return 1
    }
    const best = new BestOfN({ module: qa(), N: 2, rewardFn, threshold: 1 })
    expect((await context(settings, () => best.call({ question: 'q' }))).answer).toBe('1')
    expect(warnings).toEqual(['BestOfN: Attempt 1 failed with rollout id 0: not this one'])
    given = 0
    const once = new BestOfN({ module: qa(), N: 1, rewardFn, threshold: 1 })
    await expect(context(settings, () => once.call({ question: 'q' }))).rejects.toThrow('not this one')
  })

  it('counts what is no reward as a failure, and refuses options that can not be meant', async () => {
    const odd = new BestOfN({ module: qa(), N: 1, rewardFn: () => Number.NaN, threshold: 1 })
    await expect(context({ lm: new DummyLM(() => ({ answer: 'x' })) }, () => odd.call({ question: 'q' }))).rejects.toThrow(
      /finite/,
    )
    expect(() => new BestOfN({ module: qa(), N: 0, rewardFn: lengthOf, threshold: 1 })).toThrow(/N must be/)
    expect(() => new BestOfN({ module: qa(), N: 1, rewardFn: 'no' as never, threshold: 1 })).toThrow(/rewardFn/)
    await expect(context({ lm: null }, () => odd.call({ question: 'q' }))).rejects.toThrow('No LM is loaded')
  })
})
