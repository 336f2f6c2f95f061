import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import { ChainOfThought } from './chain-of-thought'
import { DummyLM } from './dummy-lm'
import { Module } from './module'
import { Predict } from './predict'

class Inner extends Module {
  p = new Predict('question -> answer')
  forward(inputs: { question: string }) {
    return this.p.call(inputs)
  }
}

class Outer extends Module {
  first = new ChainOfThought('question -> answer')
  many = [new Predict('text -> label'), new Inner()] as const
  table = { x: new Predict('text -> label'), y: new ChainOfThought('text -> label') }
  alias = this.many[0]
  frozen = new Inner()
  last = new Inner()
  nested = [[new Predict('question -> answer')]]
  constructor() {
    super()
    this.frozen.compiled = true
  }
  forward(inputs: { question: string }) {
    return this.first.call(inputs)
  }
}

const names = (module: Module) => module.namedPredictors().map(([name]) => name)

describe('namedPredictors', () => {
  it('goes by attributes, one level into lists and records, past compiled parts and repetitions', () => {
    expect(names(new Outer())).toEqual(['first.predict', 'many[0]', 'many[1].p', "table['x']", "table['y'].predict", 'last.p'])
  })

  it('of a bare predictor is itself', () => {
    expect(names(new Predict('q -> a'))).toEqual(['self'])
    expect(names(new ChainOfThought('q -> a'))).toEqual(['predict'])
  })
})

describe('copies', () => {
  it('share signatures and models, and nothing that an optimizer changes', () => {
    const lm = new DummyLM([])
    const program = new Outer()
    program.setLm(lm)
    program.first.demos = [{ question: 'q', answer: 'a' }]
    const copy = program.deepcopy()
    copy.first.demos.push({ question: 'r', answer: 'b' })
    expect(copy).toBeInstanceOf(Outer)
    expect(program.first.demos).toHaveLength(1)
    expect(copy.first.signature).toBe(program.first.signature)
    expect(copy.getLm()).toBe(lm)
    expect(copy.alias).toBe(copy.many[0])
  })

  it('after a reset hold no demos and no model', () => {
    const program = new Inner()
    program.p.demos = [{ question: 'q', answer: 'a' }]
    program.setLm(new DummyLM([]))
    const fresh = program.resetCopy()
    expect(fresh.p.demos).toEqual([])
    expect(fresh.getLm()).toBeNull()
    expect(program.p.demos).toHaveLength(1)
  })
})

describe('language models', () => {
  it('are not one when they differ', () => {
    const program = new Outer()
    program.last.p.lm = new DummyLM([])
    expect(() => program.getLm()).toThrow(/no unique LM/)
  })
})

describe('state', () => {
  it('has the shape that DSPy saves', () => {
    const program = new Inner()
    program.p.demos = [{ question: 'q', answer: 'a' }]
    expect(program.dumpState()).toEqual({
      p: {
        traces: [],
        train: [],
        demos: [{ question: 'q', answer: 'a' }],
        signature: {
          instructions: 'Given the fields `question`, produce the fields `answer`.',
          fields: [
            { prefix: 'Question:', description: '$' + '{question}' },
            { prefix: 'Answer:', description: '$' + '{answer}' },
          ],
        },
        lm: null,
      },
    })
  })

  it('of another program is refused before anything changes', () => {
    const program = new Outer()
    const state = new Inner().dumpState()
    expect(() => program.loadState(state)).toThrow(/no entry 'first.predict', .* this program has no predictor 'p'\. Saved: 'p'/)
  })

  it('goes to a file and back', () => {
    const program = new Inner()
    program.p.demos = [{ question: 'q', answer: 'a' }]
    program.p.signature = program.p.signature.withInstructions('Be brief.')
    const loaded = new Inner()
    loaded.loadState(JSON.parse(JSON.stringify(program.dumpState())))
    expect(loaded.p.signature.instructions).toBe('Be brief.')
    expect(loaded.p.demos).toEqual([{ question: 'q', answer: 'a' }])
  })
})

describe('what is shown', () => {
  it('is what each predictor is told', () => {
    const program = new Inner()
    program.p.demos = [{ question: 'q', answer: 'a' }]
    program.p.signature = program.p.signature.withInstructions('Be brief.\nBe right.')
    expect(inspect(program)).toBe('Inner\n  p: question -> answer (1 demo)\n    Be brief.\n    Be right.')
  })
})
