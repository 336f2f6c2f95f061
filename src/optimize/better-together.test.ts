import { describe, expect, it } from 'vitest'
import { context, DummyLM, Example, Module, Predict } from '../program'
import { BetterTogether, type BetterTogetherCompileOptions, type Optimizer } from './better-together'
import { LabeledFewShot } from './labeled-few-shot'
import { SIMBA } from './simba'

class OneWord extends Module {
  qa = new Predict('question -> answer')
  forward({ question }: { question: string }) {
    return this.qa.call({ question })
  }
}

const examples = (count: number) =>
  Array.from({ length: count }, (_, i) => new Example({ question: `q${i}.`, answer: 'right' }).withInputs('question'))

/** An optimizer that writes a word behind the instructions. */
const writes = (word: string, also: (program: Module) => void = () => {}): Optimizer => ({
  compile: async (student) => {
    const program = student.deepcopy()
    for (const predictor of program.predictors())
      predictor.signature = predictor.signature.withInstructions(`${predictor.signature.instructions} ${word}`)
    also(program)
    return program
  },
})

/** Every question is answered right after 'good', none after 'bad'. */
const lm = new DummyLM((messages) => ({
  answer: /good/.test(messages[0]!.content) && !/bad/.test(messages[0]!.content) ? 'right' : 'wrong',
}))
const metric = (example: { answer?: unknown }, prediction: { answer?: unknown }) => example.answer === prediction.answer

const compile = (
  optimizers: Record<string, Optimizer>,
  options: Partial<BetterTogetherCompileOptions<OneWord>> = {},
  student = new OneWord(),
) =>
  context({ lm }, () =>
    new BetterTogether({ metric, optimizers }).compile(student, { trainset: examples(10), valsetRatio: 0.3, ...options }),
  )

describe('BetterTogether', () => {
  it('answers the best program on the way', async () => {
    const student = new OneWord()
    const best = await compile({ p: writes('good'), w: writes('bad') }, { strategy: 'p -> w' }, student)
    expect(best.qa.signature.instructions).toMatch(/ good$/)
    expect(best.candidatePrograms.map(({ strategy, score }) => [strategy, score])).toEqual([
      ['p', 100],
      ['', 0],
      ['p -> w', 0],
    ])
    expect([best.flagCompilationErrorOccurred, best.interrupted, best.compiled]).toEqual([false, false, true])
    expect(student.qa.signature.instructions).not.toContain('good')
  })

  it('runs optimizers of ours', async () => {
    const p = new LabeledFewShot({ k: 2 })
    const s = new SIMBA({ metric, bsize: 2, numCandidates: 2, maxSteps: 1, promptModel: lm })
    const best = await compile({ p, s, w: writes('good') }, { strategy: 'p -> s -> w' })
    expect(best.flagCompilationErrorOccurred).toBe(false)
    expect(best.candidatePrograms[0]!.strategy).toBe('p -> s -> w')
  })

  it('puts back language models that an optimizer reset', async () => {
    const student = new OneWord()
    student.setLm(lm)
    const best = await compile({ p: writes('good', (program) => program.setLm(null)) }, { strategy: 'p' }, student)
    expect(best.getLm()).toBe(lm)
  })

  it('keeps the best so far when an optimizer fails, and what it threw', async () => {
    const breaks: Optimizer = { compile: async () => Promise.reject(new Error('out of memory')) }
    const warnings: string[] = []
    const best = await context({ onWarning: (text) => warnings.push(text) }, () =>
      compile({ p: writes('good'), w: breaks }, { strategy: 'p -> w -> p' }),
    )
    expect([best.flagCompilationErrorOccurred, best.compilationError?.message]).toEqual([true, 'out of memory'])
    expect(best.candidatePrograms.map(({ strategy }) => strategy)).toEqual(['p', ''])
    expect(warnings[0]).toContain("'p -> w'")
  })

  it.each([[0.3], [0]])('keeps the best so far when interrupted, with validation share %d', async (valsetRatio) => {
    const stop = new AbortController()
    const stops = writes('later', () => stop.abort(new Error('enough')))
    const best = await compile({ p: writes('good'), w: stops }, { strategy: 'p -> w -> p', valsetRatio, signal: stop.signal })
    expect([best.interrupted, best.flagCompilationErrorOccurred]).toEqual([true, false])
    expect(best.qa.signature.instructions).toMatch(valsetRatio > 0 ? / good$/ : / good later$/)
  })

  it('without validation the latest program wins', async () => {
    const best = await compile({ p: writes('good'), w: writes('bad') }, { strategy: 'p -> w', valsetRatio: 0 })
    expect(best.qa.signature.instructions).toMatch(/ good bad$/)
    expect(best.candidatePrograms.map(({ score }) => score)).toEqual([null, null, null])
  })
})

describe('bad input', () => {
  const p = writes('good')
  it.each([
    [{ strategy: 'p -> x' }, "The strategy names 'x', but the optimizers are 'p'"],
    [{ strategy: 'p->p' }, "The strategy names 'p->p'"],
    [{ strategy: ' ' }, 'The strategy is empty'],
    [{ valsetRatio: 1 }, 'valsetRatio is 1; a number from 0 to below 1'],
    [{ trainset: [] }, 'The trainset is empty'],
    [{ strategy: 'p', optimizerCompileArgs: { w: {} } }, "optimizerCompileArgs names 'w'"],
    [{ strategy: 'p', optimizerCompileArgs: { p: { student: 1 } } }, "holds 'student'"],
  ])('%j is refused', async (options, message) => {
    await expect(compile({ p }, options as never)).rejects.toThrow(message)
  })

  it('a compile argument that the optimizer does not take, with the nearest one it takes', async () => {
    const simba = new SIMBA({ metric })
    const args = { optimizerCompileArgs: { s: { sed: 1 } } }
    await expect(compile({ s: simba }, { strategy: 's', ...args })).rejects.toThrow(
      "Optimizer 's' (SIMBA) takes no compile argument 'sed'; it takes 'trainset', 'signal', 'seed'. Did you mean 'seed'?",
    )
  })

  it('a compiled student, no optimizers, something that is none', async () => {
    const student = new OneWord()
    student.compiled = true
    await expect(compile({ p }, {}, student)).rejects.toThrow('The student is compiled already')
    expect(() => new BetterTogether({ metric, optimizers: {} })).toThrow('BetterTogether needs optimizers')
    expect(() => new BetterTogether({ metric, optimizers: { p: 3 as never } })).toThrow("Optimizer 'p' must be an optimizer")
    expect(() => new BetterTogether({ metric: undefined as never, optimizers: { p } })).toThrow('BetterTogether needs a metric')
  })
})
