import { describe, expect, it } from 'vitest'
import { context } from './context'
import { DummyLM } from './dummy-lm'
import { Prediction } from './example'
import { majority } from './majority'
import { MultiChainComparison } from './multi-chain-comparison'
import { normalizeText } from './normalize-text'

describe('majority', () => {
  const rows = (...answers: unknown[]) => answers.map((answer) => ({ answer }))

  it('takes the first completion with the most common answer, as text is compared', () => {
    expect(majority(rows('dog', 'The  Cat!', 'cat')).answer).toBe('The  Cat!')
    expect(majority(rows('x', 'y', 'y', 'x')).answer).toBe('x')
    expect(majority(Prediction.fromCompletions({ answer: ['a b', 'c', 'c'] })).answer).toBe('c')
  })

  it('passes over empty answers unless all are empty', () => {
    expect(majority(rows('', '', 'z')).answer).toBe('z')
    expect(majority(rows('the', '!')).answer).toBe('the')
  })

  it('votes on the field that is named, by the rule that is given', () => {
    const two = [
      { a: '1', b: 'x' },
      { a: '2', b: 'y' },
      { a: '2', b: 'x' },
    ]
    expect(majority(two).toDict()).toEqual({ a: '1', b: 'x' })
    expect(majority(two, { field: 'a' }).toDict()).toEqual({ a: '2', b: 'y' })
    expect(majority(rows('Cat', 'cat', 'cat'), { normalize: null }).answer).toBe('cat')
    expect(majority(rows(1, 2, 3, 5), { normalize: (value) => Number(value) % 2 }).answer).toBe(1)
  })

  it('says what it can not vote on', () => {
    expect(() => majority([])).toThrow('no completions')
    expect(() => majority([{ a: 1 }], { field: 'b' })).toThrow("Completion 0 has no field 'b'")
    expect(() => majority(new Prediction({ a: 1 }))).toThrow('made by hand')
  })

  it('compares without case, punctuation, articles and blanks', () => {
    expect(normalizeText('The,  Eiffel\t Tower!')).toBe('eiffel tower')
    expect(normalizeText('an apple a day, another theatre')).toBe('apple day another theatre')
  })
})

describe('MultiChainComparison', () => {
  it('shows the model every attempt, and asks for one answer', async () => {
    const lm = new DummyLM([{ rationale: 'both', answer: 'blue' }])
    const compare = new MultiChainComparison('question -> answer', { M: 2 })
    const completions = [new Prediction({ reasoning: 'light\nscatters', answer: 'blue' }), { rationale: 'sea', answer: 7 }]
    const { answer, rationale } = await context({ lm }, () => compare.call({ completions, question: 'sky?' }))
    expect([answer, rationale]).toEqual(['blue', 'both'])
    const [{ messages, options }] = lm.history as [(typeof lm.history)[0]]
    expect(options).toEqual({ temperature: 0.7 })
    expect(messages.at(-1)!.content).toContain("«I'm trying to light I'm not sure but my prediction is blue»")
    expect(messages.at(-1)!.content).toContain("«I'm trying to sea I'm not sure but my prediction is 7»")
  })

  it('refuses another number of attempts, and attempts without reasoning', async () => {
    const compare = new MultiChainComparison('question -> answer', { M: 2 })
    await expect(compare.call({ completions: [{}], question: 'q' })).rejects.toThrow(
      "(1) doesn't match the expected number M (2)",
    )
    await expect(compare.call({ completions: [{ answer: 1 }, {}], question: 'q' })).rejects.toThrow(/needs a `rationale`/)
    await expect(compare.call({ question: 'q' } as never)).rejects.toThrow('takes its attempts beside the inputs')
    // @ts-expect-error the question is missing
    await expect(compare.call({ completions: [] })).rejects.toThrow()
  })
})
