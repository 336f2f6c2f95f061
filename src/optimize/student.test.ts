import { describe, expect, it } from 'vitest'
import { context, DummyLM, LM, Module, Predict } from '../program'
import { ArborProvider } from './arbor-provider'
import { checkStudent } from './student'

class Two extends Module {
  query = new Predict('question -> query')
  answer = new Predict('question, query -> answer')
  forward(inputs: { question: string }) {
    return this.query.call(inputs)
  }
}
class None extends Module {
  forward() {
    return null
  }
}

const lm = (options: object = {}) =>
  new LM('openai/arbor:m', { provider: new ArborProvider(), apiBase: 'http://127.0.0.1:1/v1/', ...options })

describe('checkStudent', () => {
  it('finds the configured LM, or that of the program, and the predictors', () => {
    const configured = lm()
    expect(context({ lm: configured }, () => checkStudent(new Two()))).toEqual({
      lm: configured,
      predictors: ['query', 'answer'],
    })
    const own = lm()
    const program = new Two()
    program.setLm(own)
    expect(context({ lm: configured }, () => checkStudent(program)).lm).toBe(own)
  })

  it('refuses predictors with different LMs, also when one takes the configured one', () => {
    const program = new Two()
    program.query.lm = lm()
    program.answer.lm = lm()
    expect(() => checkStudent(program)).toThrow(/use 2 different LMs; GRPO trains one\. Call program\.setLm\(lm\)/)
    program.answer.lm = null
    expect(() => context({ lm: lm() }, () => checkStudent(program))).toThrow(/2 different LMs/)
  })

  it('refuses what cannot be trained, and says what is needed', () => {
    const check = (model: unknown) => context({ lm: model as LM }, () => checkStudent(new Two()))
    expect(() => check(null)).toThrow(/No LM: call dspy\.configure/)
    expect(() => check(new DummyLM([]))).toThrow(/LM dummy can't be trained.*ArborProvider.*apiBase: server\.baseUrl/)
    expect(() => check(lm({ provider: undefined }))).toThrow(/ArborProvider/)
    expect(() => check(lm({ apiBase: undefined }))).toThrow(/apiBase/)
    expect(() => checkStudent(new None())).toThrow(/no predictor: there is nothing to train/)
  })
})
