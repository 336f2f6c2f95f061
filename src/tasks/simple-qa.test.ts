import { expect, it } from 'vitest'
import { context, DummyLM, Example, Prediction } from '../program'
import { compareSettings, optimizerSettings } from './optimizer-settings'
import { answerFeedback, answerMetric, loadSimpleQA, simpleQAProgram } from './simple-qa'

const example = new Example({ question: 'Which element has the symbol C?', answer: 'carbon' }).withInputs('question')

it.each([
  ['carbon', true],
  ['It is Carbon.', true],
  ['c', false],
  ['', false],
  ['hydrocarbons', false],
])('the answer %j is right: %s', async (answer, right) => {
  expect(answerMetric(example, new Prediction({ answer }))).toBe(right)
  expect(answerFeedback(example, new Prediction({ answer }))).toMatchObject({
    score: right,
    feedback: expect.stringContaining('carbon'),
  })
})

it('a failed run earns nothing', () => {
  expect(answerMetric(example, null as never)).toBe(false)
})

it('draws training examples by the seed, and keeps the splits apart', async () => {
  const [one, again, other] = await Promise.all([0, 0, 1].map((seed) => loadSimpleQA({ train: 20, val: 5, test: 7 }, seed)))
  const questions = ({ train }: { train: Example[] }) => train.map((row) => row.question)
  expect(questions(one!)).toEqual(questions(again!))
  expect(questions(one!)).not.toEqual(questions(other!))
  expect([one!.val.length, one!.test.length]).toEqual([5, 7])
})

it('starts with worked examples where a model needs them', async () => {
  const program = await simpleQAProgram({ demos: optimizerSettings('HuggingFaceTB/SmolLM2-135M-Instruct').demos })
  expect(program.answer.demos.length).toBe(2)
  const lm = new DummyLM([{ reasoning: 'One knows it.', answer: 'Paris' }])
  expect((await context({ lm }, () => program.call({ question: 'What is the capital of France?' }))).answer).toBe('Paris')
  expect((await simpleQAProgram()).answer.demos).toEqual([])
})

it('has settings for every model', () => {
  expect(optimizerSettings('arbor-tiny').adapter).toBe('chat')
  expect(optimizerSettings('Qwen/Qwen2.5-1.5B-Instruct').sizes.test).toBe(300)
})

it('lays settings side by side, value by value', () => {
  const rows = compareSettings({ tiny: optimizerSettings('arbor-tiny'), large: optimizerSettings('Qwen/Qwen2.5-1.5B-Instruct') })
  expect(rows).toContainEqual({ setting: 'sizes: test', tiny: '200', large: '300' })
  expect(rows).toContainEqual({ setting: 'mipro: auto', tiny: 'null', large: 'null' })
})
