import { inspect } from 'node:util'
import { describe, expect, expectTypeOf, it } from 'vitest'
import { OptionError } from '../errors'
import { Example, fieldsOf, Prediction } from './example'

describe('Example', () => {
  const example = new Example({ question: 'q', answer: 'a' }).withInputs('question')

  it('has its fields as properties that can be set', () => {
    const copy = example.copy()
    copy.answer = 'b'
    expect(copy.toDict()).toEqual({ question: 'q', answer: 'b' })
    expect(example.answer).toBe('a')
    expectTypeOf(example.answer).toEqualTypeOf<string>()
    expectTypeOf<Example>().toHaveProperty('anything').toBeAny()
  })

  it('keeps its methods when a field has their name', () => {
    const odd = new Example({ keys: 'mine', get: 'too' })
    expect(odd.keys()).toEqual(['keys', 'get'])
    expect(odd.get('keys')).toBe('mine')
    expect(fieldsOf(odd)).toEqual({ keys: 'mine', get: 'too' })
  })

  it('parts inputs from labels', () => {
    expect(example.inputs().toDict()).toEqual({ question: 'q' })
    expect(example.labels().toDict()).toEqual({ answer: 'a' })
    expect(() => new Example({ a: 1 }).inputs()).toThrow(/fields: a.*withInputs/)
  })

  it('nests, prints and turns into JSON', () => {
    const outer = new Example({ inner: new Example({ x: 1 }), list: [new Example({ y: null })] })
    expect(JSON.stringify(outer)).toBe('{"inner":{"x":1},"list":[{"y":null}]}')
    expect(inspect(example)).toBe("Example({'question': 'q', 'answer': 'a'}) (input_keys={'question'})")
  })

  it('compares by content', () => {
    expect(example.equals(new Example({ answer: 'a', question: 'q' }))).toBe(true)
    expect(new Example({ a: [1, { b: 2 }] }).equals(new Example({ a: [1, { b: 3 }] }))).toBe(false)
    expect(new Example({ a: [] }).equals(new Example({ a: {} }))).toBe(false)
  })

  it('says which field is not there to leave out', () => {
    expect(() => example.without('zzz')).toThrow(
      new OptionError("There is no field 'zzz' to leave out; the fields are question, answer."),
    )
  })
})

describe('Prediction', () => {
  it('counts as its score', () => {
    const [low, high] = [new Prediction({ score: 0.25 }), new Prediction({ score: 0.5 })]
    expect(low < high).toBe(true)
    expect(Number(low) + Number(high)).toBe(0.75)
    expect(() => Number(new Prediction({ answer: 'a' }))).toThrow(/'score'/)
  })

  it('holds every completion', () => {
    const prediction = Prediction.fromCompletions([{ answer: 'a' }, { answer: 'b' }])
    expect(prediction.answer).toBe('a')
    expect(prediction.completions!.at(1).answer).toBe('b')
    expect(() => prediction.completions!.at(2)).toThrow('There is no completion 2; there are 2.')
  })
})
