import { describe, expect, it, vi } from 'vitest'
import { LMError } from '../errors'
import { ChatAdapter, context, DummyLM, Example, Module, Predict, type ProgressEvent, setProgressObserver } from '../program'
import { GEPA } from './gepa'
import { autoBudget, type GEPAOptions } from './gepa-options'
import type { GepaMetric } from './gepa-program'
import type { InstructionProposer } from './gepa-search'

class TwoSteps extends Module {
  plan = new Predict('question -> hint')
  solve = new Predict('question, hint -> answer')
  async forward({ question }: { question: string }) {
    const { hint } = await this.plan.call({ question })
    return this.solve.call({ question, hint })
  }
}

const examples = (count: number, from = 0) =>
  Array.from({ length: count }, (_, i) => new Example({ question: `q${i + from}.`, answer: 'right' }).withInputs('question'))

/** Each of PLAN and SOLVE in the instructions answers half of the questions. */
const taskLm = () =>
  new DummyLM((messages) => {
    const [system, asked] = [messages[0]!.content, messages.at(-1)!.content]
    if (asked.includes('field `[[ ## hint ## ]]`')) return { hint: system.includes('PLAN') ? 'good' : 'poor' }
    const even = Number(/q(\d+)\./.exec(asked)![1]) % 2 === 0
    return { answer: (even ? asked.includes('good') : system.includes('SOLVE')) ? 'right' : 'wrong' }
  })

/** Writes PLAN for the first predictor and SOLVE for the second. */
const reflectionLm = () =>
  new DummyLM((messages) => (messages[0]!.content.includes('fields `hint`') ? '```\nPLAN\n```' : '```\nSOLVE\n```'))

const metric: GepaMetric = (example, prediction) => ({
  score: example.answer === prediction.answer,
  feedback: `The answer is ${example.answer}.`,
})

const gepaOf = (options: Partial<GEPAOptions> = {}) =>
  new GEPA({ metric, reflectionLm: reflectionLm(), maxMetricCalls: 100, ...options })

const compile = (
  gepa: GEPA,
  options: { valset?: Example[]; signal?: AbortSignal; trainset?: Example[] } = {},
  student = new TwoSteps(),
) =>
  context({ lm: taskLm(), adapter: new ChatAdapter({ fallback: null }) }, () =>
    gepa.compile(student, { trainset: examples(6), valset: examples(8, 100), ...options }),
  )

describe('GEPA', () => {
  it('rewrites both predictors, and leaves the student as it was', async () => {
    const student = new TwoSteps()
    const best = await compile(gepaOf(), {}, student)
    expect(best.predictors().map(({ signature }) => signature.instructions)).toEqual(['PLAN', 'SOLVE'])
    expect(best.score).toBe(100)
    expect(student.plan.signature.instructions).toContain('produce the fields `hint`')
    const { detailedResults: found } = best
    expect(found.valAggregateScores[found.bestIdx]).toBe(1)
    expect(found.parents[0]).toEqual([null])
    expect(found.discoveryEvalCounts[0]).toBe(0)
    expect(found.totalMetricCalls).toBeGreaterThanOrEqual(100)
    expect(best.candidatePrograms.map(({ score }) => score)).toEqual(
      found.valAggregateScores.map((score) => 100 * score).sort((a, b) => b - a),
    )
  })

  it('the same seed gives the same run', async () => {
    const run = async () => (await compile(gepaOf({ seed: 3 }))).detailedResults
    const [one, two] = [await run(), await run()]
    expect([one.valSubscores, one.parents]).toEqual([two.valSubscores, two.parents])
  })

  it('works with a metric that gives no feedback: the score is what the reflection model reads', async () => {
    const lm = reflectionLm()
    await compile(
      gepaOf({ metric: (example, prediction) => example.answer === prediction.answer, reflectionLm: lm, maxMetricCalls: 12 }),
    )
    expect(lm.history[0]!.messages[0]!.content).toContain('## Feedback\nThis trajectory got a score of ')
  })

  it('tells of every candidate as it is scored', async () => {
    const events: ProgressEvent[] = []
    const before = setProgressObserver((event) => events.push(event))
    try {
      const best = await compile(gepaOf())
      const told = events.flatMap(({ kind, payload }) =>
        kind === 'optimize:item' && 'candidate' in (payload as object)
          ? [(payload as { candidate: { label: string } }).candidate]
          : [],
      )
      expect(told.length).toBe(best.detailedResults.candidates.length)
      expect(told[0]).toMatchObject({ label: 'as given', score: 0, best: 0 })
      expect(told[1]).toMatchObject({ label: 'candidate 1, from 0', score: 50, best: 50 })
    } finally {
      setProgressObserver(before)
    }
  })

  it('ends an interrupted run with the best so far, and all candidates', async () => {
    const stop = new AbortController()
    const stopAfterOne: GepaMetric = (example, prediction, ...rest) => {
      if (gepa.search!.candidates.length === 2) stop.abort(new Error('enough'))
      return metric(example, prediction, ...rest)
    }
    const gepa: GEPA = gepaOf({ metric: stopAfterOne })
    const best = await compile(gepa, { signal: stop.signal })
    expect([best.interrupted, best.score, best.detailedResults.candidates.length]).toEqual([true, 50, 2])
  })

  it('without a valset chooses by the trainset, and says so', async () => {
    const best = await context({ lm: taskLm(), adapter: new ChatAdapter({ fallback: null }) }, () =>
      gepaOf({ maxMetricCalls: 10 }).compile(new TwoSteps(), { trainset: examples(4) }),
    )
    expect(best.notes[0]).toContain('GEPA has no valset')
    expect(best.detailedResults.valSubscores[0]!.length).toBe(4)
  })

  it('keeps what the leading candidates answered when asked to', async () => {
    const best = await compile(gepaOf({ trackBestOutputs: true }))
    const [candidate, output] = best.detailedResults.bestOutputsValset![0]![0]!
    expect([candidate, output.get('answer')]).toEqual([1, 'right'])
    expect((await compile(gepaOf())).detailedResults.bestOutputsValset).toBeNull()
  })
})

describe('what can be put in place of its parts', () => {
  it('an instruction proposer, which gets the examples and answers the texts', async () => {
    const proposer = vi.fn<InstructionProposer>(() => ({ plan: 'PLAN', solve: 'SOLVE' }))
    const best = await compile(new GEPA({ metric, instructionProposer: proposer, componentSelector: 'all', maxMetricCalls: 30 }))
    expect(best.score).toBe(100)
    const { componentsToUpdate, reflectiveDataset } = proposer.mock.calls[0]![0]
    expect(componentsToUpdate).toEqual(['plan', 'solve'])
    expect(reflectiveDataset['solve']![0]!.Feedback).toBe('The answer is right.')
  })

  it('a component selector', async () => {
    const best = await compile(gepaOf({ componentSelector: () => ['solve'] }))
    expect(best.plan.signature.instructions).toContain('Given the fields')
    expect(best.solve.signature.instructions).toBe('SOLVE')
  })

  it('a stop callback', async () => {
    const best = await compile(gepaOf({ stopCallbacks: [({ pool }) => pool.entries.length > 1] }))
    expect(best.detailedResults.candidates.length).toBe(2)
  })

  it('failed answers as feedback, with the structure they should have', async () => {
    const lm = reflectionLm()
    const broken = new DummyLM(() => 'no fields here')
    const gepa = gepaOf({ reflectionLm: lm, addFormatFailureAsFeedback: true, maxMetricCalls: 12 })
    await context({ lm: broken, adapter: new ChatAdapter({ fallback: null }) }, () =>
      gepa.compile(new TwoSteps(), { trainset: examples(3), valset: examples(2) }),
    )
    const asked = lm.history[0]!.messages[0]!.content
    expect(asked).toContain(
      "Couldn't parse the output as per the expected output format. The model's raw response was:\n```\nno fields here\n```",
    )
    expect(asked).toContain('## Feedback\nYour output failed to parse. Follow this structure:\nsystem: Your input fields are:')
  })
})

describe('bad input', () => {
  it.each([
    [{ metric: undefined }, /GEPA needs a metric/],
    [{ maxMetricCalls: undefined }, /exactly one budget of auto, maxFullEvals and maxMetricCalls; it got none/],
    [{ auto: 'light' }, /it got auto and maxMetricCalls/],
    [{ auto: 'tiny', maxMetricCalls: undefined }, /auto is "tiny"; one of light, medium, heavy/],
    [{ reflectionLm: undefined }, /GEPA needs a reflectionLm/],
    [{ maxMetricCalls: 0 }, /maxMetricCalls is 0/],
    [{ candidateSelectionStrategy: 'best' }, /candidateSelectionStrategy is "best"; one of pareto/],
    [{ componentSelector: 'some' }, /componentSelector is "some"/],
    [{ reflectionLM: 1 }, /no option "reflectionLM". Did you mean "reflectionLm"/],
  ])('%j is refused', (options, message) => {
    const given = { metric, reflectionLm: reflectionLm(), maxMetricCalls: 10, ...options } as unknown as GEPAOptions
    expect(() => new GEPA(Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as never)).toThrow(
      message,
    )
  })

  it('an empty trainset, a teacher, a program without predictors', async () => {
    const gepa = gepaOf()
    await expect(compile(gepa, { trainset: [] })).rejects.toThrow('The trainset is empty: GEPA needs at least one example')
    await expect(gepa.compile(new TwoSteps(), { trainset: examples(1), teacher: new TwoSteps() } as never)).rejects.toThrow(
      'GEPA takes no teacher',
    )
    class Nothing extends Module {
      forward() {
        return null
      }
    }
    await expect(gepa.compile(new Nothing() as never, { trainset: examples(1) })).rejects.toThrow('The program has no predictor')
  })

  it('a metric that always throws is said at once, with its own words', async () => {
    const failing = gepaOf({
      metric: () => {
        throw new Error('no such column')
      },
    })
    await expect(compile(failing)).rejects.toThrow(/failed on all 8 examples. The first failure: Error: no such column/)
  })

  it('a metric that throws now and then costs those runs only', async () => {
    const warnings: string[] = []
    const moody: GepaMetric = (example, prediction, ...rest) => {
      if (example.question === 'q1.') throw new Error('q1 is moody')
      return metric(example, prediction, ...rest)
    }
    const run = context({ onWarning: (text) => warnings.push(text) }, () => compile(gepaOf({ metric: moody })))
    expect((await run).score).toBe(100)
    expect(warnings.some((text) => text.includes('q1 is moody'))).toBe(true)
  })

  it('a reflection model that cannot be reached ends the run; one that fails later costs an iteration', async () => {
    const down = gepaOf({ reflectionLm: new DummyLM(() => new LMError('the service is down')) })
    await expect(compile(down)).rejects.toThrow('the service is down')
    expect(down.search!.candidates.length).toBe(1)
    let calls = 0
    const shaky = new DummyLM((messages) => {
      if (++calls > 1 && calls < 4) return new LMError('overloaded')
      return messages[0]!.content.includes('fields `hint`') ? 'PLAN' : 'SOLVE'
    })
    const best = await compile(gepaOf({ reflectionLm: shaky }))
    expect(best.score).toBe(100)
    expect(Object.values(best.trialLogs).filter((log) => log['skipped'] === 'overloaded').length).toBe(1)
  })
})

it('budgets grow with predictors and validation examples', () => {
  expect(autoBudget({ predictors: 1, candidates: 6, valset: 30 })).toBe(500)
  expect(gepaOf({ maxMetricCalls: undefined, maxFullEvals: 3 } as never).budget(1, 10, 5)).toBe(45)
  expect(gepaOf().budget(1, 10)).toBe(100)
})
