import { describe, expect, it } from 'vitest'
import { context, type TraceEntry } from './context'
import { DummyLM } from './dummy-lm'
import { Module } from './module'
import { describePredictors } from './offer-feedback'
import { Predict } from './predict'
import { Refine } from './refine'

class OneWord extends Module {
  qa = new Predict('question -> answer')
  forward(inputs: { question: string }) {
    return this.qa.call(inputs)
  }
}
const rewardFn = (_: unknown, { answer }: { answer: string }) => !answer.includes(' ')

describe('Refine', () => {
  it('gives the next attempt the advice that the model wrote about the last one', async () => {
    const prompts: string[] = []
    const lm = new DummyLM((messages) => {
      const [system, last] = [messages[0]!.content, messages.at(-1)!.content]
      prompts.push(last)
      if (system.includes('`advice`')) return { discussion: 'too long', advice: '{"qa": "Answer in one word."}' }
      return { answer: last.includes('Answer in one word.') ? 'Brussels' : 'It is Brussels' }
    })
    const trace: TraceEntry[] = []
    const refine = new Refine({ module: new OneWord(), N: 3, rewardFn, threshold: 1 })
    expect((await context({ lm, trace }, () => refine.call({ question: 'Capital?' }))).answer).toBe('Brussels')
    expect(prompts).toHaveLength(3)
    expect(prompts[1]).toContain('class OneWord') // the program's own source, and the reward's
    expect(prompts[1]).toContain('!answer.includes(')
    expect(prompts[2]).toContain('[[ ## hint_ ## ]]\nAnswer in one word.')
    expect(trace.map(({ inputs }) => inputs.hint_ ?? null)).toEqual([null, 'Answer in one word.'])
  })

  it('keeps the best attempt when the advice can not be had', async () => {
    const warnings: string[] = []
    const lm = new DummyLM((messages) =>
      messages[0]!.content.includes('`advice`') ? new Error('no advice') : { answer: 'two words' },
    )
    const refine = new Refine({ module: new OneWord(), N: 2, rewardFn, threshold: 1 })
    const settings = { lm, onWarning: (text: string) => void warnings.push(text) }
    expect((await context(settings, () => refine.call({ question: 'Capital?' }))).answer).toBe('two words')
    expect(warnings.join()).toContain('Refine: Attempt failed with rollout id 0')
  })
})

describe('describePredictors', () => {
  it('lists fields and instructions of every predictor', () => {
    const line = '-'.repeat(80)
    expect(describePredictors(new OneWord())).toBe(
      `${line}\nModule qa\n\tInput Fields:\n\t\t1. \`question\` (str):\n\tOutput Fields:\n\t\t1. \`answer\` (str):\n` +
        `\tOriginal Instructions: \n\t\tGiven the fields \`question\`, produce the fields \`answer\`.\n${line}`,
    )
  })
})
