// dspy's BootstrapFewShot and MIPROv2, and ours, with the same program, examples and seed: the same messages on the wire, the same demos,
// the same instructions. One scripted model answers both.

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { BootstrapFewShot, MIPROv2 } from '../../src/optimize'
import { ChainOfThought, context, Example, fieldsOf, LM, type Loose, Module, Predict, type Prediction } from '../../src/program'
import type { Message } from '../../src/protocol'
import { noPeers, python, SLOW } from './python'
import { type Asked, type ScriptedServer, scriptedServer } from './scripted-server'

class Riddle extends Module {
  readonly think = new ChainOfThought('question -> hint')
  readonly answer = new Predict('question, hint -> answer')
  async forward({ question }: { question: string }): Promise<Prediction> {
    const { hint } = await this.think.call({ question })
    return this.answer.call({ question, hint })
  }
}

const ROWS = Array.from({ length: 14 }, (_, i) => ({ question: `What is ${i}? It's "so" – ‘ß’ 日本`, answer: `a${i}` }))
const CODE = 'class Riddle:\n    think: question -> reasoning, hint\n    answer: question, hint -> answer\n'
const BOOTSTRAP = { maxBootstrappedDemos: 3, maxLabeledDemos: 5, maxRounds: 2 }
const MIPRO = { auto: null, numCandidates: 5, maxBootstrappedDemos: 2, maxLabeledDemos: 2, seed: 7 } as const
const COMPILE = { numTrials: 2, minibatch: false, viewDataBatchSize: 1 }

/** Every third answer is wrong, every fifth question's can't be read; proposals are numbered by what was said before them. */
function reply(messages: readonly Message[]): string {
  const request = messages.at(-1)!.content
  const number = Number(/What is (\d+)/.exec(request)?.[1] ?? 0)
  const asked = request.slice(request.lastIndexOf('Respond with'))
  if (asked.startsWith('Respond with the') && asked.includes('answer') && number % 5 === 4) return 'I would rather not say.'
  const values: Record<string, string> = {
    reasoning: `Because ${number}.`,
    hint: `hint ${number}`,
    answer: number % 3 === 0 ? 'wrong' : `a${number}`,
    observations: request.length % 2 === 0 ? `They have ${request.length} letters.` : 'COMPLETE',
    summary: 'Summary: "Short riddles."',
    program_description: 'Description: it answers riddles.',
    module_description: 'It thinks.',
    proposed_instruction: `Instruction: "Answer in ${request.length} letters."`,
  }
  const fields = Object.keys(values).filter((name) => new RegExp(`[\`# ]${name}[\` ]`).test(asked))
  if (asked.startsWith('Respond with a JSON'))
    return JSON.stringify(Object.fromEntries(fields.map((name) => [name, values[name]])))
  return `${fields.map((name) => `[[ ## ${name} ## ]]\n${values[name]}`).join('\n\n')}\n\n[[ ## completed ## ]]`
}

/** Python's names. */
function snake(options: object): object {
  const name = (key: string) => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
  return Object.fromEntries(Object.entries(options).map(([key, value]) => [name(key), value]))
}

interface Answer {
  readonly bootstrap: Record<string, Loose[]>
  readonly mipro: { readonly demos: Loose[][][]; readonly instructions: string[][] }
}

const missing = noPeers()
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))

const metric = (example: Loose, prediction: Loose) => example.answer === prediction.answer
let server: ScriptedServer
let theirs: Answer
let theirRequests: Asked[]

beforeAll(async () => {
  server = await scriptedServer(reply)
  if (missing !== null) return
  const wishes = { bootstrap: snake(BOOTSTRAP), mipro: { options: snake(MIPRO), compile: snake(COMPILE) }, code: CODE }
  theirs = await python<Answer>('optimizers.py', { base_url: server.baseUrl, rows: ROWS, ...wishes })
  theirRequests = server.take()
}, SLOW)
afterAll(() => server.close())

describe('the same messages on the wire as dspy', () => {
  const trainset = ROWS.map((row) => new Example(row).withInputs('question'))
  const underStub = <T>(run: () => Promise<T>) => {
    const lm = new LM('openai/stub', { apiBase: server.baseUrl, apiKey: 'none', cache: false, temperature: 0, maxTokens: 100 })
    return context({ lm }, run)
  }
  /** BootstrapFewShot's; what they asked after those was MIPROv2's. */
  let bootstrapCalls: number

  it('BootstrapFewShot', async () => {
    const program = await underStub(() => new BootstrapFewShot({ metric, ...BOOTSTRAP }).compile(new Riddle(), { trainset }))
    const ours = server.take()
    bootstrapCalls = ours.length
    expect(ours.length).toBeGreaterThan(10)
    expect(ours).toEqual(theirRequests.slice(0, ours.length))
    const demos = program.namedPredictors().map(([name, predictor]) => [name, predictor.demos.map((demo) => fieldsOf(demo))])
    expect(Object.fromEntries(demos)).toEqual(theirs.bootstrap)
  })

  it('MIPROv2 up to its trials: demo sets, data summary, descriptions, proposals', async () => {
    const wanted = theirRequests.slice(bootstrapCalls)
    const optimizer = new MIPROv2({ metric, numThreads: 1, ...MIPRO })
    const seen: Record<string, number>[] = []
    const sampler = {
      suggest: (space: Readonly<Record<string, number>>) => {
        seen.push(space)
        return Object.fromEntries(Object.entries(space).map(([name, count]) => [name, count - 1]))
      },
      tell: () => {},
    }
    const best = await underStub(() => optimizer.compile(new Riddle(), { trainset, ...COMPILE, programCode: CODE, sampler }))
    const ours = server.take()
    expect(wanted.length).toBeGreaterThan(30)
    expect(ours.slice(0, wanted.length)).toEqual(wanted)
    expect(ours[wanted.length]!.messages.at(-1)!.content, 'then the trials begin').toContain('What is 3?')
    expect(seen[0]).toEqual({
      '0_predictor_instruction': 5,
      '0_predictor_demos': 5,
      '1_predictor_instruction': 5,
      '1_predictor_demos': 5,
    })
    const last = optimizer.search!.candidates.at(-1)!.program.predictors()
    expect(last.map(({ signature }) => signature.instructions)).toEqual(theirs.mipro.instructions.map((own) => own.at(-1)))
    expect(last.map(({ demos }) => demos.map((demo) => fieldsOf(demo)))).toEqual(theirs.mipro.demos.map((sets) => sets.at(-1)))
    expect(best.candidatePrograms).toHaveLength(3)
  })
})
