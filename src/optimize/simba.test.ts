import { describe, expect, it } from 'vitest'
import { LMError } from '../errors'
import { ChatAdapter, context, DummyLM, Example, Module, Predict } from '../program'
import { SIMBA } from './simba'
import type { SIMBAOptions } from './simba-options'
import type { SimbaBucketLog } from './simba-run'

class OneWord extends Module {
  qa = new Predict('question -> answer')
  forward({ question }: { question: string }) {
    return this.qa.call({ question })
  }
}

const examples = (count: number) =>
  Array.from({ length: count }, (_, i) => new Example({ question: `q${i}.`, answer: 'right' }).withInputs('question'))

/** Right with a demo or a rule in the prompt, else right every third time. */
const taskLm = () => {
  let calls = 0
  return new DummyLM((messages) => {
    const helped = messages.length > 2 || messages[0]!.content.includes('RULE')
    return { answer: helped || calls++ % 3 === 0 ? 'right' : 'wrong' }
  })
}

const promptLm = () =>
  new DummyLM(
    () => '[[ ## discussion ## ]]\nd\n\n[[ ## module_advice ## ]]\n{"qa": "RULE", "other": "?"}\n\n[[ ## completed ## ]]',
  )

const metric: SIMBAOptions['metric'] = (example, prediction) => example.answer === prediction?.answer

const simbaOf = (options: Partial<SIMBAOptions> = {}) =>
  new SIMBA({ metric, promptModel: promptLm(), bsize: 4, numCandidates: 3, maxSteps: 2, numThreads: 1, ...options })

const compile = (simba: SIMBA, options: { trainset?: Example[]; signal?: AbortSignal; seed?: number } = {}, lm = taskLm()) =>
  context({ lm, adapter: new ChatAdapter({ fallback: null }) }, () =>
    simba.compile(new OneWord(), { trainset: examples(6), ...options }),
  )

const bucketsOf = (logs: Record<number, Record<string, unknown>>) =>
  Object.values(logs).flatMap((log) => log['buckets'] as SimbaBucketLog[])

describe('SIMBA', () => {
  it('learns from the difference between runs of one example', async () => {
    const best = await compile(simbaOf())
    expect(best.score).toBe(100)
    expect(best.qa.demos.length > 0 || best.qa.signature.instructions.endsWith('\n\nRULE')).toBe(true)
    expect(best.candidatePrograms.map(({ label }) => label)).toContain('as given')
    expect(best.mbCandidatePrograms.length).toBeGreaterThan(0)
  })

  it('adds rules only where no demo is allowed', async () => {
    const best = await compile(simbaOf({ maxDemos: 0 }))
    expect(best.qa.demos).toEqual([])
    const strategies = new Set(bucketsOf(best.trialLogs).map(({ strategy }) => strategy))
    expect([...strategies]).toEqual(['append_a_rule'])
  })

  it('drops a demo where a predictor holds as many as it may', async () => {
    const best = await compile(simbaOf({ maxDemos: 1, maxSteps: 4 }))
    expect(bucketsOf(best.trialLogs).some(({ dropped }) => dropped > 0)).toBe(true)
    for (const { program } of best.candidatePrograms) expect(program.qa.demos.length).toBeLessThanOrEqual(2)
  })

  it('cuts long inputs of demos', async () => {
    const best = await compile(simbaOf({ demoInputFieldMaxlen: 2, maxSteps: 4 }))
    const demos = [...best.mbCandidatePrograms, ...best.candidatePrograms].flatMap(({ program }) => program.qa.demos)
    expect(demos.length).toBeGreaterThan(0)
    for (const demo of demos) expect((demo as { question: string }).question).toMatch(/^q\d\n\t\t... <TRUNCATED FOR BREVITY>$/)
  })

  it('asks at temperature 1 with rollout ids of their own, a teacher first', async () => {
    const [lm, teacher] = [taskLm(), taskLm()]
    const asked: (number | null | undefined)[] = []
    const watch = {
      lmObservers: [({ options }: { options: { rolloutId?: number | null } }) => void asked.push(options.rolloutId)],
    }
    await context(watch, () => compile(simbaOf({ teacherSettings: { lm: teacher }, maxSteps: 1, maxDemos: 4 }), {}, lm))
    expect(asked.slice(0, 12)).toEqual([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
    expect(teacher.options.rolloutId).toBeUndefined() // DSPy writes into the teacher's own options
  })

  it('shows what the metric says beside the score to the prompt model', async () => {
    const promptModel = promptLm()
    const telling: SIMBAOptions['metric'] = (example, prediction) =>
      ({ score: Number(example.answer === prediction?.answer), why: 'as it is' }) as never
    await compile(simbaOf({ metric: telling, promptModel, maxDemos: 0 }))
    const asked = promptModel.history[0]!.messages.at(-1)!.content
    expect(asked).toContain('[[ ## better_reward_info ## ]]\n{\n  "why": "as it is"\n}')
    expect(asked).toContain('[[ ## worse_reward_value ## ]]\n0.0')
    expect(asked).toContain('[[ ## program_code ## ]]\nclass OneWord extends')
  })

  it('ends an interrupted run with the best so far', async () => {
    const stop = new AbortController()
    const simba: SIMBA = simbaOf({
      maxSteps: 8,
      metric: (example, prediction, trace) => {
        if (simba.search!.candidates.length > 0) stop.abort(new Error('enough'))
        return metric(example, prediction, trace)
      },
    })
    const best = await compile(simba, { signal: stop.signal })
    expect([best.interrupted, best.score]).toEqual([true, 100])
  })
})

describe('bad input', () => {
  it.each([
    [{ metric: undefined }, /SIMBA needs a metric/],
    [{ bsize: 0 }, /bsize is 0; a whole number of at least 1/],
    [{ maxDemos: -1 }, /maxDemos is -1/],
    [{ temperatureForSampling: 0 }, /temperatureForSampling is 0/],
    [{ batchSize: 3 }, /no option "batchSize"/],
  ])('%j is refused', (options, message) => {
    expect(() => simbaOf(options as never)).toThrow(message)
  })

  it('too few examples', async () => {
    await expect(compile(simbaOf(), { trainset: [] })).rejects.toThrow('The trainset is empty: SIMBA needs at least one example')
    await expect(compile(simbaOf(), { trainset: examples(3) })).rejects.toThrow(
      'The trainset has 3 examples, fewer than a minibatch (bsize 4)',
    )
  })

  it('no language model, or one that cannot be reached', async () => {
    await expect(simbaOf().compile(new OneWord(), { trainset: examples(4) })).rejects.toThrow('No LM is loaded')
    const down = new DummyLM(() => new LMError('the service is down'))
    await expect(compile(simbaOf(), {}, down)).rejects.toThrow(
      'The program or its metric failed on all 12 examples. The first failure: LMError: the service is down',
    )
  })

  it('a metric that always throws, or that returns no score', async () => {
    const failing = simbaOf({
      metric: () => {
        throw new Error('no such column')
      },
    })
    await expect(compile(failing)).rejects.toThrow('The first failure: Error: no such column')
    await expect(compile(simbaOf({ metric: (() => ({ why: 'no score' })) as never }))).rejects.toThrow(/without a score/)
  })

  it('a prompt model that fails costs its programs only', async () => {
    const warnings: string[] = []
    const simba = simbaOf({ promptModel: new DummyLM(() => new LMError('overloaded')), maxSteps: 4 })
    const best = await context({ onWarning: (text) => warnings.push(text) }, () => compile(simba))
    expect(bucketsOf(best.trialLogs).some(({ outcome }) => 'failed' in outcome && outcome.failed === 'overloaded')).toBe(true)
    expect(warnings.some((text) => text.includes('overloaded'))).toBe(true)
    expect(best.score).toBe(100)
  })
})
