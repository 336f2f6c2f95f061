import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { context, DummyLM, Example, type Metric, Module, Predict, type Prediction } from '../program'
import { MIPROv2, type MIPROv2Options } from './mipro-v2'
import { historyText, programSource } from './proposer-text'

const examples = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, i) =>
    new Example({ question: `q${i + from}`, answer: `a${i + from}` }).withInputs('question'),
  )
const trainset = examples(0, 4)
const valset = examples(4, 10)
const metric: Metric = (example, prediction) => example.answer === prediction.answer

class Riddle extends Module {
  readonly solve = new Predict('question -> answer')
  forward({ question }: { question: string }): Promise<Prediction> {
    return this.solve.call({ question })
  }
}

/** Proposes a word and a number; a program told the second word answers all, else every other question. */
function model(): DummyLM {
  let proposals = 0
  return new DummyLM((messages) => {
    const [system, last] = [messages[0]!.content, messages.at(-1)!.content]
    if (system.includes('`observations` (str): Somethings')) return { observations: 'They are short.' }
    if (system.includes('`summary`')) return { summary: 'Riddles.' }
    if (system.includes("`module_description` (str): Description of the module's role"))
      return { module_description: 'It solves.' }
    if (system.includes('`program_description` (str): Describe')) return { program_description: 'It solves riddles.' }
    if (system.includes('`proposed_instruction`')) return { proposed_instruction: `Word ${++proposals}.` }
    const number = Number(/q(\d+)/.exec(last)![1])
    return { answer: number % 2 === 0 || system.includes('Word 2.') ? `a${number}` : 'no' }
  })
}

const small = { metric, auto: null, numCandidates: 3, numThreads: 1 } as const
const compile = (options: Partial<MIPROv2Options> = {}, more: object = {}) => {
  const optimizer = new MIPROv2({ ...small, ...options })
  const sets = { trainset, valset, numTrials: 6, minibatch: false, ...more }
  const best = context({ lm: model() }, () => optimizer.compile(new Riddle(), sets))
  return { optimizer, best }
}

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'mipro-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})

describe('MIPROv2', () => {
  it('finds the instruction that helps, and logs every trial', async () => {
    const best = await compile().best
    expect(best.score).toBe(100)
    expect(best.solve.signature.instructions).toBe('Word 2.')
    expect(best.candidatePrograms).toHaveLength(7)
    expect(best.trialLogs[1]).toMatchObject({ fullEvalScore: 50, totalEvalCallsSoFar: 6 })
    expect(Object.keys(best.trialLogs)).toEqual(['1', '2', '3', '4', '5', '6', '7'])
    expect(best.spent.lmCalls).toBeGreaterThan(42)
  })

  it('searches instructions alone where no demos are wanted', async () => {
    const best = await compile({ maxBootstrappedDemos: 0, maxLabeledDemos: 0 }).best
    expect(best.solve.demos).toEqual([])
    expect(best.score).toBe(100)
    expect(best.trialLogs[2]).not.toHaveProperty('0_predictor_demos')
  })

  it('judges by minibatches, in full now and then, and goes on when every combination has been judged in full', async () => {
    const zeroShot = { maxBootstrappedDemos: 0, maxLabeledDemos: 0, numCandidates: 2 }
    const more = { minibatch: true, minibatchSize: 2, minibatchFullEvalSteps: 1, numTrials: 8 }
    const best = await compile(zeroShot, more).best
    expect(best.score).toBe(100)
    expect(best.candidatePrograms, 'as it is, and two combinations').toHaveLength(3)
    expect(best.mbCandidatePrograms).toHaveLength(8)
  })

  it('repeats itself with the same seed', async () => {
    const labels = async (seed: number) => {
      const { optimizer, best } = compile({ seed })
      await best
      return optimizer.search!.candidates.map(({ label }) => label)
    }
    expect(await labels(1)).toEqual(await labels(1))
    expect(await labels(1)).not.toEqual(await labels(2))
  })

  it('ends with the best so far when it is interrupted', async () => {
    const stop = new AbortController()
    let judged = 0
    const stopping: Metric = (example, prediction) => {
      if (valset.includes(example as never) && ++judged === 20) stop.abort()
      return metric(example, prediction)
    }
    const { optimizer, best } = compile({ metric: stopping }, { signal: stop.signal })
    expect((await best).interrupted).toBe(true)
    expect((await best).candidatePrograms).toHaveLength(3)
    expect(optimizer.search!.candidates).toHaveLength(3)
  })

  it('saves every program that was scored', async () => {
    await compile({ logDir: folder }, { numTrials: 2 }).best
    const files = readdirSync(join(folder, 'evaluated_programs'))
    expect(files.sort()).toEqual(['program_-1.json', 'program_2.json', 'program_3.json'])
    const again = new Riddle()
    await again.load(join(folder, 'evaluated_programs', 'program_3.json'))
    expect(again.solve.signature.instructions).toMatch(/^(Word|Given)/)
  })

  it('counts an evaluation that fails as 0, and throws when none succeeds', async () => {
    const broken: Metric = (example, prediction) => {
      if (valset.includes(example as never)) throw new TypeError('no field answr')
      return metric(example, prediction)
    }
    const { optimizer, best } = compile({ metric: broken, maxErrors: 2 }, { numTrials: 2 })
    await expect(best).rejects.toThrow(/2 of 2 examples failed.*no field answr/)
    expect(optimizer.search!.candidates.map(({ score }) => score)).toEqual([0, 0, 0])
  })

  it('does with fewer instructions where the prompt model forgets the format, and says so', async () => {
    let proposals = 0
    const forgetful = new DummyLM(({ 0: first }) => {
      if (!first!.content.includes('`proposed_instruction`')) return { observations: 'Short.', summary: 'Riddles.' }
      return ++proposals === 3 ? { proposed_instruction: 'Word 2.' } : 'Sure! Here is one:'
    })
    // The JSON fallback asks again: proposals 1 and 2 are the first one's, 3 is the second's.
    const best = await compile({ promptModel: forgetful }, { programAwareProposer: false }).best
    expect(best.score).toBe(100)
    expect(best.notes.join('\n')).toMatch(/^No instruction from the prompt model: AdapterParseError/)
    const dumb = new DummyLM(() => 'Sure!')
    const alone = { promptModel: dumb, maxBootstrappedDemos: 0, maxLabeledDemos: 0 }
    await expect(compile(alone).best).rejects.toThrow(/wrote no instruction that can be read.*stronger promptModel/)
    const demos = await compile({ promptModel: dumb }).best
    expect(demos.score, 'demos alone').toBe(50)
  })

  it.for([
    ['no examples', {}, { trainset: [] }, /trainset is empty: MIPROv2/],
    ['an empty valset', {}, { valset: [] }, /valset is empty/],
    ['one example and no valset', {}, { trainset: examples(0, 1), valset: undefined }, /at least 2 examples/],
    [
      'a minibatch larger than the valset',
      {},
      { minibatch: true, minibatchSize: 7 },
      /minibatch of 7 is larger than the valset of 6/,
    ],
    [
      'trials beside an auto mode',
      { auto: 'light', numCandidates: null },
      {},
      /auto: 'light' chooses numCandidates and numTrials/,
    ],
    ['candidates without trials', {}, { numTrials: undefined }, /numTrials: 6 }\) suits 3 candidates/],
    ['no candidates', { numCandidates: 0 }, {}, /numCandidates must be a whole number from 1 on, but it is 0/],
    ['full evaluations every 0 trials', {}, { minibatchFullEvalSteps: 0 }, /minibatchFullEvalSteps must be/],
    ['neither', { numCandidates: null }, {}, /say numCandidates/],
  ] as const)('refuses %s', async ([, options, more, words]) => {
    await expect(compile(options, more).best).rejects.toThrow(words)
  })

  it('refuses an auto mode that is none, and no model at all', async () => {
    expect(() => new MIPROv2({ metric, auto: 'huge' as never })).toThrow(/'light', 'medium', 'heavy' or null/)
    await expect(new MIPROv2(small).compile(new Riddle(), { trainset, valset, numTrials: 1, minibatch: false })).rejects.toThrow(
      /needs a model/,
    )
  })
})

describe('what the proposer is told', () => {
  it('of the program: signatures, and the source of its classes', () => {
    const text = programSource(new Riddle())
    expect(text).toContain('instructions: Given the fields `question`, produce the fields `answer`.')
    expect(text).toContain('class Riddle extends')
    expect(text).toContain('forward({ question })')
    expect(text).not.toContain('class Predict')
  })

  it('of past instructions: the best five by their mean, the best one last', () => {
    const history = [10, 20, 30, 40, 50, 60].map((score) => ({ instruction: `I${score}`, score }))
    const text = historyText([...history, { instruction: 'I60', score: 10 }], 5)
    expect(text).toBe('I20 | Score: 20\n\nI30 | Score: 30\n\nI60 | Score: 35\n\nI40 | Score: 40\n\nI50 | Score: 50\n\n')
  })
})
