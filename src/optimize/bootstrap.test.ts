import { describe, expect, it } from 'vitest'
import { LMError, OptionError } from '../errors'
import { ChainOfThought, context, DummyLM, Example, fieldsOf, type Metric, Module, Predict, type Prediction } from '../program'
import { BootstrapFewShot } from './bootstrap-few-shot'
import { BootstrapRS } from './bootstrap-rs'
import { LabeledFewShot } from './labeled-few-shot'

const trainset = Array.from({ length: 6 }, (_, i) => new Example({ question: `q${i}`, answer: `a${i}` }).withInputs('question'))
const metric: Metric = (example, prediction) => example.answer === prediction.answer
/** Answers every question rightly, or with `wrong`. */
const knows = (wrong: readonly number[] = []) =>
  new DummyLM((messages) => {
    const number = Number(/q(\d+)/.exec(messages.at(-1)!.content)![1])
    return { answer: wrong.includes(number) ? 'no' : `a${number}` }
  })
const student = () => new Predict('question -> answer')
const under = <T>(lm: DummyLM, run: () => Promise<T>) => context({ lm, numThreads: 1 }, run)

describe('LabeledFewShot', () => {
  it('leaves the student alone, and its model in place', async () => {
    const given = student()
    given.lm = knows()
    const program = await new LabeledFewShot({ k: 2 }).compile(given, { trainset, sample: false })
    expect(program.demos).toEqual(trainset.slice(0, 2))
    expect(program.lm).toBe(given.lm)
    expect(given.demos).toEqual([])
  })
})

describe('BootstrapFewShot', () => {
  it('says what it did', async () => {
    const optimizer = new BootstrapFewShot({ metric, maxBootstrappedDemos: 2, maxLabeledDemos: 0 })
    const program = await under(knows([0]), () => optimizer.compile(student(), { trainset }))
    expect(program.demos.map((demo) => fieldsOf(demo))).toEqual([
      { augmented: true, question: 'q1', answer: 'a1' },
      { augmented: true, question: 'q2', answer: 'a2' },
    ])
    expect(optimizer.run).toMatchObject({ bootstrapped: 2, examples: 3, attempts: 3, errors: [] })
    expect(program.compiled).toBe(true)
    expect(program.spent.lmCalls).toBe(3)
  })

  it('takes the model of teacherSettings as the teacher, whatever model the student has', async () => {
    const given = student()
    given.lm = knows([0, 1, 2, 3, 4, 5])
    const optimizer = new BootstrapFewShot({ metric, teacherSettings: { lm: knows() }, maxBootstrappedDemos: 1 })
    const program = await optimizer.compile(given, { trainset })
    expect(optimizer.run!.bootstrapped).toBe(1)
    expect(program.lm, 'the student keeps its own').toBe(given.lm)
  })

  it('keeps one demo of a predictor that is called twice in an example, the same each time', async () => {
    class Twice extends Module {
      readonly ask = new Predict('question -> answer')
      async forward({ question }: { question: string }): Promise<Prediction> {
        await this.ask.call({ question: `${question} first` })
        return this.ask.call({ question })
      }
    }
    const compile = () =>
      under(knows(), () =>
        new BootstrapFewShot({ maxBootstrappedDemos: 6, maxLabeledDemos: 0 }).compile(new Twice(), { trainset }),
      )
    const [one, other] = [await compile(), await compile()]
    expect(one.ask.demos).toHaveLength(6)
    expect(one.ask.demos).toEqual(other.ask.demos)
    const first = one.ask.demos.filter((demo) => String(fieldsOf(demo)['question']).endsWith('first'))
    expect(first.length, 'one in two; six equal coins fall in 3 % of all').toBeGreaterThan(0)
    expect(first.length).toBeLessThan(6)
  })

  it('counts a metric that throws as an error, and gives up at maxErrors with the error itself', async () => {
    const broken: Metric = () => {
      throw new TypeError('no field answr')
    }
    const few = new BootstrapFewShot({ metric: broken, maxLabeledDemos: 1 })
    const program = await under(knows(), () => few.compile(student(), { trainset }))
    expect(few.run!.errors).toEqual(Array(6).fill('TypeError: no field answr'))
    expect(program.demos).toHaveLength(1)
    const strict = new BootstrapFewShot({ metric: broken, maxErrors: 3 })
    await expect(under(knows(), () => strict.compile(student(), { trainset }))).rejects.toThrow('no field answr')
  })

  it('ends an interrupted search with the demos it has', async () => {
    const stop = new AbortController()
    const stopping: Metric = (example, prediction) => {
      if (example.question === 'q2') stop.abort()
      return metric(example, prediction)
    }
    const optimizer = new BootstrapFewShot({ metric: stopping, maxLabeledDemos: 0 })
    const program = await under(knows(), () => optimizer.compile(student(), { trainset, signal: stop.signal }))
    expect(program.interrupted).toBe(true)
    expect(program.demos).toHaveLength(3)
  })

  it('refuses no examples, a compiled student, and a teacher that is another program', async () => {
    const optimizer = new BootstrapFewShot({ metric })
    await expect(optimizer.compile(student(), { trainset: [] })).rejects.toThrow(/trainset is empty: BootstrapFewShot/)
    const compiled = Object.assign(student(), { compiled: true })
    await expect(optimizer.compile(compiled, { trainset })).rejects.toThrow(/already compiled/)
    const teacher = new ChainOfThought('question -> reply') as never
    await expect(optimizer.compile(student(), { trainset, teacher })).rejects.toThrow(OptionError)
  })
})

describe('BootstrapRS', () => {
  it('ends at once, with the first error, where the metric or the model fails on every example', async () => {
    const broken = new BootstrapRS({
      metric: () => {
        throw new TypeError('no such field')
      },
    })
    await expect(under(knows(), () => broken.compile(student(), { trainset }))).rejects.toThrow(
      'The program or its metric failed on all 6 examples. The first failure: TypeError: no such field',
    )
    expect(broken.search!.candidates).toEqual([])
    const down = new DummyLM(() => new LMError('the service is down'))
    await expect(under(down, () => new BootstrapRS({ metric }).compile(student(), { trainset }))).rejects.toThrow(
      'the service is down',
    )
  })

  it('names rows that are no examples', async () => {
    const rows = [trainset[0], { question: 'q1', answer: 'a1' }] as never
    await expect(new BootstrapRS({ metric }).compile(student(), { trainset: rows })).rejects.toThrow(
      'trainset[1] is no dspy.Example but {"question":"q1","answer":"a1"}. Write new dspy.Example',
    )
  })

  /** Knows the answers that stand in the demos, and no others: so more and other demos score better. */
  const reader = () =>
    new DummyLM((messages) => {
      const number = /q(\d+)/.exec(messages.at(-1)!.content)![1]!
      const shown = messages.slice(0, -1).some(({ content }) => content.includes(`a${number}`))
      return { answer: shown ? `a${number}` : 'no' }
    })
  const options = { metric, maxBootstrappedDemos: 1, maxLabeledDemos: 3, numCandidatePrograms: 2 }

  it('tries zero-shot, labeled, unshuffled and shuffled demos, and answers the best', async () => {
    const best = await under(reader(), () => new BootstrapRS(options).compile(student(), { trainset }))
    expect(best.candidatePrograms).toHaveLength(5)
    const scores = best.candidatePrograms.map(({ score }) => score)
    expect(scores).toEqual([...scores].sort((a, b) => b - a))
    expect(best.score).toBe(50)
    expect(best.candidatePrograms.at(-1)).toMatchObject({ label: 'zero-shot', score: 0, seed: -3 })
  })

  it('ends with the best so far when it is interrupted', async () => {
    const stop = new AbortController()
    let judged = 0
    const stopping: Metric = (example, prediction) => {
      if (++judged === 14) stop.abort()
      return metric(example, prediction)
    }
    const optimizer = new BootstrapRS({ ...options, metric: stopping })
    const best = await under(reader(), () => optimizer.compile(student(), { trainset, signal: stop.signal }))
    expect(best.interrupted).toBe(true)
    expect(best.candidatePrograms.map(({ label }) => label)).toEqual(['labeled demos', 'zero-shot'])
    expect(best.demos).toHaveLength(3)
  })

  it('stops at a score, and tries the seeds it is told', async () => {
    const early = await under(reader(), () => new BootstrapRS({ ...options, stopAtScore: 30 }).compile(student(), { trainset }))
    expect(early.candidatePrograms).toHaveLength(2)
    const one = await under(reader(), () => new BootstrapRS(options).compile(student(), { trainset, restrict: [1] }))
    expect(one.candidatePrograms.map(({ seed }) => seed)).toEqual([1])
    await expect(new BootstrapRS(options).compile(student(), { trainset, restrict: [2] })).rejects.toThrow(
      /names none of the seeds/,
    )
  })

  it('bootstraps none where none are wanted', async () => {
    const best = await under(reader(), () =>
      new BootstrapRS({ ...options, maxBootstrappedDemos: 0 }).compile(student(), { trainset }),
    )
    expect(best.candidatePrograms).toHaveLength(5)
  })

  it('throws where too many examples fail, and keeps the candidates', async () => {
    let judged = 0
    const failing: Metric = (example, prediction) => {
      if (++judged > 6) throw new Error('the judge is gone')
      return metric(example, prediction)
    }
    const optimizer = new BootstrapRS({ ...options, metric: failing, maxErrors: 2 })
    await expect(under(reader(), () => optimizer.compile(student(), { trainset }))).rejects.toThrow(/the judge is gone/)
    expect(optimizer.search!.candidates.map(({ label }) => label)).toEqual(['zero-shot'])
  })
})
