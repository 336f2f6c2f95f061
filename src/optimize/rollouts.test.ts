import { describe, expect, it } from 'vitest'
import { LMError } from '../errors'
import { ChatAdapter, context, type DummyAnswer, DummyLM, Example, type LM, type Metric, Module, Predict } from '../program'
import type { Message } from '../protocol'
import { formGroups } from './groups'
import { type ArborGRPOOptions, checkGrpoOptions } from './grpo-options'
import { gate } from './limited'
import { rolloutStep, titleOf } from './rollouts'
import { seedOf } from './sampler'

class QA extends Module {
  answer = new Predict('question -> reasoning, answer')
  forward(inputs: { question: string }) {
    return this.answer.call(inputs)
  }
}

const trainset = ['one', 'two'].map((question) => new Example({ question, answer: question }).withInputs('question'))
const GOOD = { reasoning: 'because', answer: 'one' }

interface Setting extends Omit<Partial<ArborGRPOOptions>, 'metric'> {
  readonly answer?: (messages: readonly Message[]) => DummyAnswer
  readonly metric?: unknown
  readonly program?: Module
  readonly examples?: readonly number[]
  readonly signal?: AbortSignal
}

async function roll(setting: Setting = {}) {
  const { answer = () => GOOD, program = new QA(), examples = [0], signal, metric = () => 1, ...options } = setting
  const lm = new DummyLM(answer)
  const settings = checkGrpoOptions({ numRolloutsPerGrpoStep: 2, ...options, metric: metric as Metric })
  // The rollouts ask an LM for nothing but answers, so a dummy will do.
  const request = { program, lm: lm as unknown as LM, trainset, settings, step: 3, examples, ...(signal ? { signal } : {}) }
  return { lm, rollouts: await context({ adapter: new ChatAdapter() }, () => rolloutStep(request)) }
}

const rewards = async (setting: Setting) => (await roll(setting)).rollouts.map((rollout) => rollout.reward)

describe('rewards', () => {
  it.each([
    [0, 0],
    [-2.5, -2.5],
    [true, 1],
    [false, 0],
  ])('the metric says %s: the reward is %s', async (said, reward) => {
    expect(await rewards({ metric: () => said })).toEqual([reward, reward])
    expect(await rewards({ metric: async () => said })).toEqual([reward, reward])
  })

  it.each([[Number.NaN], [Number.POSITIVE_INFINITY], ['0.5'], [undefined], [null]])(
    '%s is none, and ends the run',
    async (said) => {
      await expect(rewards({ metric: () => said })).rejects.toThrow(
        /The metric gave no reward on "one" with the prediction \{"reasoning":"because","answer":"one"\}: .*finite number or a boolean\. Mend the metric and resume/,
      )
    },
  )

  it('a metric that throws ends the run, and says on what', async () => {
    const metric = () => {
      throw new TypeError('gold is undefined')
    }
    await expect(rewards({ metric })).rejects.toThrow(/The metric threw on "one" .*gold is undefined\. Mend the metric/)
  })

  it('after the first error no further rollout is begun', async () => {
    let calls = 0
    const metric = () => {
      if (++calls === 2) throw new Error('stop')
      return 1
    }
    await expect(rewards({ metric, numRolloutsPerGrpoStep: 16, numThreads: 1 })).rejects.toThrow('stop')
    await new Promise((later) => setTimeout(later, 20))
    expect(calls).toBe(2)
  })

  it('the metric sees the example, the prediction and the trace', async () => {
    let trace: unknown
    const metric = (example: Example, prediction: Example, seen: unknown) => {
      trace = seen
      return example['answer'] === prediction['answer']
    }
    expect((await roll({ metric })).rollouts[0]!.reward).toBe(1)
    expect(trace).toMatchObject([{ inputs: { question: 'one' }, prediction: { answer: 'one' } }])
  })
})

describe('text that cannot be read', () => {
  const answers = (text: string) => ({ answer: () => text, metric: () => 1 })

  it('pays formatFailureScore where no field was found, and nearer failureScore with every field', async () => {
    expect(await rewards(answers('gibberish'))).toEqual([-1, -1])
    expect(await rewards(answers('[[ ## reasoning ## ]]\nbecause'))).toEqual([-0.5, -0.5])
    const scores = { formatFailureScore: -3, failureScore: 1 }
    expect(await rewards({ ...answers('gibberish'), ...scores })).toEqual([-3, -3])
    expect(await rewards({ ...answers('[[ ## reasoning ## ]]\nbecause'), ...scores })).toEqual([-1, -1])
    expect(await rewards(answers(''))).toEqual([-1, -1])
  })

  it('is a row with the very text, and counted', async () => {
    const { rollouts } = await roll(answers('  gibberish\n'))
    expect(rollouts[0]).toMatchObject({ formatFailure: true, programError: null, title: 'one' })
    expect(rollouts[0]!.calls).toMatchObject([{ predictor: 'answer', text: '  gibberish\n', completionId: 'dummy-1#0' }])
  })
})

describe('a program that fails', () => {
  it('pays failureScore when some rollouts threw, and is thrown when all did', async () => {
    let calls = 0
    class Shaky extends QA {
      override forward(inputs: { question: string }) {
        if (++calls === 1) throw new RangeError('my program is broken')
        return super.forward(inputs)
      }
    }
    expect(await rewards({ program: new Shaky(), failureScore: -0.25 })).toEqual([-0.25, 1])
    class Broken extends QA {
      override forward(): never {
        throw new RangeError('my program is broken')
      }
    }
    await expect(rewards({ program: new Broken() })).rejects.toThrow('my program is broken')
  })

  it('a model that cannot be reached ends the step', async () => {
    await expect(rewards({ answer: () => new LMError('no server') })).rejects.toThrow('no server')
  })

  it('an aborted signal ends the step with its reason', async () => {
    const stop = new AbortController()
    const answer = () => {
      stop.abort(new Error('enough'))
      return GOOD
    }
    await expect(rewards({ answer, signal: stop.signal, numThreads: 1 })).rejects.toThrow('enough')
  })
})

describe('demonstrations', () => {
  const withDemo = () => {
    const program = new QA()
    program.answer.demos = [{ question: 'a demo question', reasoning: 'r', answer: 'a' }]
    return program
  }
  const prompt = async (setting: Setting) => {
    const { rollouts, lm } = await roll({ program: withDemo(), ...setting })
    return { trained: JSON.stringify(rollouts[0]!.calls[0]!.messages), asked: JSON.stringify(lm.history[0]!.messages) }
  }

  it('excludeDemos false: the prompt is trained as it was sampled', async () => {
    const { trained, asked } = await prompt({ excludeDemos: false })
    expect(trained).toBe(asked)
    expect(trained).toContain('a demo question')
  })

  it('excludeDemos true: sampled with them, trained without', async () => {
    const { trained, asked } = await prompt({ excludeDemos: true })
    expect(asked).toContain('a demo question')
    expect(trained).not.toContain('a demo question')
    const { trained: never } = await prompt({ excludeDemos: true, program: new QA() })
    expect(trained).toBe(never)
  })
})

describe('programs of several predictors', () => {
  class Hops extends Module {
    first = new Predict('question -> answer')
    second = new Predict('question -> answer')
    async forward({ question }: { question: string }) {
      const { answer } = await this.first.call({ question })
      return this.second.call({ question: answer })
    }
  }
  const answer = () => ({ answer: 'hop' })

  it('predictors of the same signature stay apart', async () => {
    const { rollouts } = await roll({ program: new Hops(), examples: [0, 1], answer })
    const { groups, batch } = formGroups(rollouts, ['first', 'second'], 'truncate')
    expect(groups.map(({ predictor, example }) => `${predictor}/${example}`)).toEqual([
      'first/0',
      'second/0',
      'first/1',
      'second/1',
    ])
    expect(batch.map((rows) => rows.length)).toEqual([2, 2, 2, 2])
    expect(JSON.stringify(batch[0])).toContain('one')
    expect(JSON.stringify(batch[1])).toContain('hop')
  })

  it('every call has a seed of its own, that follows from run, step, example, rollout and call', async () => {
    const { lm } = await roll({ program: new Hops(), examples: [0, 1], answer, seed: 9 })
    const seeds = lm.history.map((entry) => entry.options.seed)
    const expected = [0, 1].flatMap((example) =>
      [0, 1].flatMap((rollout) => [0, 1].map((call) => seedOf(9, 3, example, rollout, call))),
    )
    expect([...seeds].sort()).toEqual([...expected].sort())
    expect(new Set(seeds).size).toBe(8)
  })
})

describe('an example that a step meets twice', () => {
  it('gets further rollouts in one larger group, and no copies', async () => {
    const { rollouts, lm } = await roll({ examples: [1, 0, 1] })
    const { groups, batch } = formGroups(rollouts, ['answer'], 'truncate')
    expect(groups.map((group) => group.example)).toEqual([1, 0])
    expect(batch.map((rows) => rows.length)).toEqual([4, 2])
    expect(new Set(lm.history.map((entry) => entry.options.seed)).size).toBe(6)
  })
})

describe('titleOf', () => {
  it('names an example by its first input, shortened', () => {
    expect(titleOf(trainset[0]!)).toBe('one')
    expect(titleOf(new Example({ q: 'x'.repeat(100) }).withInputs('q'))).toBe(`${'x'.repeat(79)}…`)
    expect(titleOf(new Example({ q: [1, 2] }).withInputs('q'))).toBe('[1,2]')
  })
})

describe('gate', () => {
  it('lets no more than its limit through at a time, in order, also after errors', async () => {
    const through = gate(2)
    const begun: number[] = []
    const ends: ((error?: Error) => void)[] = []
    const calls = [0, 1, 2, 3].map((i) =>
      through(async () => {
        begun.push(i)
        await new Promise<void>((resolve, reject) => ends.push((error) => (error ? reject(error) : resolve())))
        return i
      }),
    )
    await Promise.resolve()
    expect(begun).toEqual([0, 1])
    ends[1]!(new Error('no'))
    await expect(calls[1]).rejects.toThrow('no')
    await new Promise((turn) => setImmediate(turn))
    expect(begun).toEqual([0, 1, 2])
    for (let i = 0; i < 4; i++) await new Promise((turn) => setImmediate(turn)).then(() => ends[i]?.())
    expect(await Promise.all([calls[0], calls[2], calls[3]])).toEqual([0, 2, 3])
  })
})
