import { afterEach, describe, expect, expectTypeOf, it } from 'vitest'
import { context, type ProgressEvent, setProgressObserver } from './context'
import { DummyLM } from './dummy-lm'
import { Evaluate, type Metric } from './evaluate'
import { Example, Prediction } from './example'
import { Predict } from './predict'

const devset = ['a', 'b', 'c'].map((answer, i) => new Example({ question: `q${i}`, answer }).withInputs('question'))
const exact: Metric = (example, prediction) => example.answer === prediction.answer
const program = new Predict('question -> answer')
const answers = (...given: (string | Error)[]) => {
  const byQuestion = given.map((answer, i) => [`q${i}`, answer instanceof Error ? answer : { answer }])
  return new DummyLM(Object.fromEntries(byQuestion))
}
const evaluate = (lm: DummyLM, options: object = {}) =>
  context({ lm }, () => new Evaluate({ devset, metric: exact, ...options }).call(program))

describe('Evaluate', () => {
  it('gives a percentage, rounded as Python does, and a result for each example in order', async () => {
    const result = await evaluate(answers('a', 'x', 'c'))
    expect(result.score).toBe(66.67)
    expect(result.results.map((one) => one.score)).toEqual([true, false, true])
    expect(String(result)).toBe('EvaluationResult(score=66.67, results=<list of 3 results>)')
    expectTypeOf(result.score).toEqualTypeOf<number>()
  })

  it('tells apart fields that example and prediction share', async () => {
    const result = await evaluate(answers('a', 'x', 'c'))
    expect(result.table()[1]).toEqual({ question: 'q1', example_answer: 'b', pred_answer: 'x', exact: false })
    expect(result.columns()).toEqual(['question', 'example_answer', 'pred_answer', 'exact'])
  })

  it('gives a failing example the failure score and keeps the reason', async () => {
    const result = await evaluate(answers('a', new Error('no luck'), 'c'), { failureScore: -1 })
    expect(result.score).toBe(33.33)
    expect(result.failures().map((one) => one.error)).toEqual(['Error: no luck'])
    expect(result.failures()[0]!.prediction.keys()).toEqual([])
  })

  it('warns where every example failed: the score alone would not tell', async () => {
    const warnings: string[] = []
    const onWarning = (text: string) => warnings.push(text)
    const no = new Error('no luck')
    await context({ onWarning }, () => evaluate(answers(no, no, no), { maxErrors: 4, title: 'Test' }))
    await context({ onWarning }, () => evaluate(answers(no, 'b', no)))
    expect(warnings).toEqual(['Test: the program or its metric failed on every example. The first: Error: no luck'])
  })

  it.each([
    [Number.NaN, 'The metric returned NaN; it must return a finite number or a boolean.'],
    ['good', 'The metric returned "good" (string); it must return a finite number or a boolean.'],
    [undefined, 'The metric returned undefined (undefined); it must return a finite number or a boolean.'],
  ])('counts a metric that returns %j as a failure', async (value, message) => {
    const result = await evaluate(answers('a', 'b', 'c'), { metric: () => value, maxErrors: 4 })
    expect(result.score).toBe(0)
    expect(result.results[0]!.error).toBe(`OptionError: ${message}`)
  })

  it('takes fractions, promises and predictions with a score', async () => {
    const scores = [0.5, Promise.resolve(0.25), new Prediction({ score: 1, feedback: 'well done' })]
    const result = await evaluate(answers('a', 'b', 'c'), { metric: () => scores.shift(), numThreads: 1 })
    expect(result.score).toBe(58.33)
  })

  it('stops when too many examples fail, with the last reason', async () => {
    const lm = answers(new Error('one'), new Error('two'), 'c')
    await expect(evaluate(lm, { maxErrors: 2, numThreads: 1 })).rejects.toThrow(
      'Evaluation stopped: 2 of 2 examples failed (maxErrors is 2). The last: Error: two',
    )
    expect(lm.history).toHaveLength(0)
  })

  it('hands over fields whose names are those of methods', async () => {
    const odd = new Example({ keys: 'k', get: 'g', answer: 'a' }).withInputs('keys', 'get')
    const lm = new DummyLM({ 'k\n\n[[ ## get ## ]]\ng': { answer: 'a' } })
    const result = await context({ lm }, () =>
      new Evaluate({ devset: [odd], metric: exact }).call(new Predict('keys, get -> answer')),
    )
    expect(result.score).toBe(100)
  })

  it('runs as many at a time as asked', async () => {
    let running = 0
    let most = 0
    const slow: Metric = async () => {
      most = Math.max(most, ++running)
      await new Promise((resolve) => setTimeout(resolve, 5))
      running--
      return 1
    }
    await evaluate(answers('a', 'b', 'c'), { metric: slow, numThreads: 2 })
    expect(most).toBe(2)
  })

  it('ends when it is aborted, with the reason', async () => {
    const stop = new AbortController()
    const metric: Metric = () => {
      stop.abort(new Error('changed my mind'))
      return 1
    }
    await expect(evaluate(answers('a', 'b', 'c'), { metric, numThreads: 1, signal: stop.signal })).rejects.toThrow(
      'changed my mind',
    )
  })

  it('refuses an empty devset and a metric that is no function', async () => {
    await expect(evaluate(answers(), { devset: [] })).rejects.toThrow('The devset is empty')
    await expect(evaluate(answers(), { metric: 'exact' })).rejects.toThrow('The metric must be a function')
    await expect(evaluate(answers(), { numThreads: 0 })).rejects.toThrow('numThreads must be a whole number from 1 on')
  })
})

describe('what is shown', () => {
  afterEach(() => setProgressObserver(null))

  it('is reported only when asked for', async () => {
    const events: ProgressEvent[] = []
    setProgressObserver((event) => events.push(event))
    await evaluate(answers('a', 'x', new Error('no')))
    expect(events).toEqual([])
    await evaluate(answers('a', 'x', new Error('no')), { displayProgress: true, numThreads: 1, title: 'Test' })
    expect(events.map(({ kind, title, done, total, note }) => [kind, title, done, total, note])).toEqual([
      ['evaluate:start', 'Test', 0, 3, ''],
      ['evaluate:item', 'Test', 1, 3, 'average 100 %'],
      ['evaluate:item', 'Test', 2, 3, 'average 50 %'],
      ['evaluate:item', 'Test', 3, 3, 'average 50 %, 1 failed'],
      ['evaluate:end', 'Test', 3, 3, 'average 50 %, 1 failed'],
    ])
    expect(new Set(events.map((event) => event.id)).size).toBe(1)
  })

  it('tells why examples failed, the commonest reason first', async () => {
    const result = await evaluate(answers(new Error('no luck'), new Error('no <b>'), new Error('no luck')), { maxErrors: 4 })
    const display = (result as unknown as Record<symbol, () => Record<string, string>>)[Symbol.for('Jupyter.display')]!
    expect(display.call(result)['text/html']).toContain('<p>2 failed: Error: no luck</p><p>1 failed: Error: no &#60;b&#62;</p>')
  })

  it('escapes what a model wrote', async () => {
    const result = await evaluate(answers('<script>alert(1)</script>', 'x', 'c'), { displayTable: 2 })
    const display = (result as unknown as Record<symbol, () => Record<string, string>>)[Symbol.for('Jupyter.display')]!
    const html = display.call(result)['text/html']!
    expect(html).not.toContain('<script>')
    expect(html).toContain('1 more rows')
  })
})

describe('several rewards', () => {
  it('score their weighted sum; without weights they are refused', async () => {
    const program = new Predict('question -> answer')
    const run = (options: object) =>
      context({ lm: new DummyLM(() => ({ answer: 'yes' })) }, () =>
        new Evaluate({
          devset: [new Example({ question: 'q' }).withInputs('question')],
          metric: () => ({ correct: true, brief: 0.5 }),
          ...options,
        }).call(program),
      )
    expect((await run({ rewardWeights: { correct: 1, brief: -1 } })).score).toBe(50)
    await expect(run({ maxErrors: 1 })).rejects.toThrow('Several rewards by name need rewardWeights')
    await expect(run({ maxErrors: 1, rewardWeights: { correct: 1 } })).rejects.toThrow('"brief", which rewardWeights')
  })
})
