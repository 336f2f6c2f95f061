import { expect, it } from 'vitest'
import { ChainOfThought, context, DummyLM, Example, Module } from '../program'
import { measure, testScore } from './measure'
import { answerMetric } from './simple-qa'

class Asking extends Module {
  answer = new ChainOfThought('question -> answer')
  forward({ question }: { question: string }) {
    return this.answer.call({ question })
  }
}

it("has Wilson's interval, at the ends as well", () => {
  const { score, low, high } = testScore(91, 200)
  expect([score, low, high].map((value) => value.toFixed(1))).toEqual(['45.5', '38.7', '52.4'])
  expect(testScore(40, 40)).toMatchObject({ score: 100, high: 100 })
  expect(testScore(40, 40).low).toBeCloseTo(91.24, 1)
  expect(testScore(0, 40).low).toBe(0)
})

it("counts the optimizer's calls and not the test's, and tests greedily and at temperature 1", async () => {
  const lm = new DummyLM((_: unknown) => ({ reasoning: 'One knows it.', answer: 'Paris' }))
  const testset = ['Paris', 'Paris', 'Paris', 'Rome'].map((answer) =>
    new Example({ question: 'Which city?', answer }).withInputs('question'),
  )
  const optimize = async () => {
    const program = new Asking()
    await program.call({ question: 'Which city?' })
    await program.call({ question: 'Which city?' })
    return program
  }
  const measured = await context({ lm }, () => measure(optimize, { testset, metric: answerMetric }))
  expect(measured.program).toBeInstanceOf(Asking)
  expect(measured.lmCalls).toBe(2)
  expect([measured.greedy.score, measured.sampled.score]).toEqual([75, 75])
  expect(lm.history.map(({ options }) => options.temperature)).toEqual([
    undefined,
    undefined,
    ...Array(4).fill(0),
    ...Array(4).fill(1),
  ])
})
