// `compat`: ArborGRPO as Python has it. test/golden/dspy/grpo_batch.json holds it to the originals; here are its edges, through a server.

import { afterEach, describe, expect, it } from 'vitest'
import { ChatAdapter, context, Example, LM, Predict, PythonRandom, XMLAdapter } from '../program'
import type { StepSample } from '../protocol'
import { ArborGRPO } from './arbor-grpo'
import { ArborProvider } from './arbor-provider'
import { DspyEpochs } from './dspy-epochs'
import { type FakeArbor, fakeArbor } from './fake-arbor.fixture'
import type { ArborGRPOOptions } from './grpo-options'

const SAMPLING = { temperature: 1, top_k: -1, top_p: 1, repetition_penalty: 1 }
const trainset = ['one', 'two'].map((question) => new Example({ question, answer: question }).withInputs('question'))
const metric: ArborGRPOOptions['metric'] = (example, prediction) => example['answer'] === prediction['answer']
const TEXT = '[[ ## answer ## ]]\none   \n\nand more to say'

let server: FakeArbor | null = null
afterEach(() => server?.close())

async function compile(options: Partial<ArborGRPOOptions> = {}, compileOptions: object = {}) {
  server = await fakeArbor((_, chat) => (chat % 2 === 0 ? TEXT : 'no fields'))
  const lm = new LM('openai/arbor:m', { provider: new ArborProvider(), apiBase: server.baseUrl, temperature: 1, cache: true })
  const student = new Predict('question -> answer')
  student.setLm(lm)
  const grpo = new ArborGRPO({
    metric,
    compat: 'dspy',
    excludeDemos: true,
    numTrainSteps: 2,
    numRolloutsPerGrpoStep: 2,
    numThreads: 1,
    trainKwargs: SAMPLING,
    ...options,
  })
  const run = () => grpo.compile(student, { trainset, ...compileOptions })
  const trained = await context({ adapter: new ChatAdapter({ fallback: null }) }, run)
  return { lm, student, trained, grpo, server }
}

describe("compat: 'dspy'", () => {
  it('trains the student in place, a request for each group, with answers written anew', async () => {
    const { lm, student, trained, server } = await compile()
    expect(trained).toBe(student)
    expect(trained.compiled).toBe(true)
    expect(trained.lm!.model).toBe('openai/arbor:grpo:m:fake:1')
    expect(lm.model).toBe('openai/arbor:m')
    expect((trained.lm as LM).cache).toBe(true)
    expect(server.initialized!.trainer_config).toMatchObject({ num_generations: 2, warmup_steps: 10, loss_type: 'dapo' })
    expect(server.initialized!.trainer_config).not.toHaveProperty('top_k')
    const groups = server.steps.map(({ batch }) => batch as unknown as StepSample[])
    expect(groups.map((group) => group.length)).toEqual([2, 2])
    const [read, unread] = groups[0]!.map(({ completion }) => (completion as { content: string }).content)
    expect(read).toBe('[[ ## answer ## ]]\none   \n\nand more to say\n\n[[ ## completed ## ]]\n')
    expect(unread).toBe('no fields')
    expect(groups[0]!.map(({ reward }) => reward)).toEqual([0, -1])
    expect(server.terminated).toBe(true)
  })

  it('formats the training data in the adapter it is given, whatever asked', async () => {
    const { server } = await compile({ adapter: new XMLAdapter(), numTrainSteps: 1 })
    const [sample] = server.steps[0]!.batch as unknown as StepSample[]
    expect((sample!.completion as { content: string }).content).toMatch(/^<answer>/)
    expect(server.chats[0]!.messages[0]!.content).toContain('[[ ## answer ## ]]')
  })

  it('refuses what Python refuses', async () => {
    await expect(compile({ excludeDemos: false })).rejects.toThrow('excludeDemos: true')
    await expect(compile({ numRolloutsPerGrpoStep: 1 })).rejects.toThrow('at least 2')
    await expect(compile({ multitask: false })).rejects.toThrow('multitask')
    await expect(compile({ trainKwargs: { temperature: 1 } })).rejects.toThrow('trainKwargs lacks top_k')
    await expect(compile({ trainKwargs: { ...SAMPLING, temperature: 0.5 } })).rejects.toThrow('samples with temperature 1')
    await expect(compile({}, { trainset: [] })).rejects.toThrow('The trainset is empty')
    await expect(compile({ numRolloutsPerGrpoStep: 3 }, { teacher: [] })).resolves.toBeDefined()
  })

  it("'dspy.GRPO' takes groups of one and sends no metrics", async () => {
    const { server } = await compile({ compat: 'dspy.GRPO', numRolloutsPerGrpoStep: 1, numTrainSteps: 1, trainKwargs: {} })
    expect(server.steps[0]!.metrics).toBeUndefined()
    expect(server.steps[0]!.batch).toHaveLength(1)
  })

  it('is the only place for its options', () => {
    expect(() => new ArborGRPO({ metric, useTrainAsVal: true })).toThrow("useTrainAsVal is taken with compat: 'dspy' only")
  })
})

describe('DspyEpochs', () => {
  it('pads a trainset of whole steps by one step more, with what was used least', () => {
    const epochs = new DspyEpochs(2, new PythonRandom(0))
    expect(epochs.select(4, 0)).toHaveLength(2)
    expect(epochs.ids).toHaveLength(6)
    expect([...epochs.ids.slice(0, 4)].sort()).toEqual([0, 1, 2, 3])
    expect(epochs.ids.slice(4)).toEqual([epochs.ids[3], epochs.ids[2]])
    epochs.select(4, 3)
    expect(epochs.epoch).toBe(1)
  })
})
