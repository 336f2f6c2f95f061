// The tutorial's own cells on the model that ships: ChatAdapter, zero-shot, its metric, 8 questions x 4 answers. Only the rate is high, so that
// twenty steps show what a hundred do at the workbook's.

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { ArborGRPO, ArborProvider, type ServerInfo } from '../../src/optimize'
import { LoraConfig } from '../../src/optimize/lora-config'
import { ChainOfThought, ChatAdapter, context, Evaluate, LM, loadExamples, type Metric, Module } from '../../src/program'
import { StepRecordSchema } from '../../src/protocol'
import { freshFolder, recordsOnDisk, serve, whyNot } from './tiny'

const STEPS = 20
const storagePath = freshFolder()
let missing: string | null
let server: ServerInfo
beforeAll(async () => {
  missing = await whyNot()
  if (missing === null) server = await serve({ model: 'arbor-tiny', storagePath })
})
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))
afterAll(() => server?.close())

class SimpleQA extends Module {
  answer = new ChainOfThought('question -> answer')
  forward({ question }: { question: string }) {
    return this.answer.call({ question })
  }
}

const answerMetric: Metric = (example, prediction) => {
  const gold = String(example['answer']).toLowerCase().trim()
  const pred = String(prediction['answer']).toLowerCase().trim()
  return gold.includes(pred) || pred.includes(gold)
}

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length

/** The tutorial's compile, and the sampled score and parse rate of 100 questions that it never sees, before and after. */
async function tutorial() {
  const lm = new LM('openai/arbor:arbor-tiny', {
    ...{ provider: new ArborProvider(), apiBase: server.baseUrl, temperature: 1, maxTokens: 96 },
  })
  const { trainset, devset } = await loadExamples('data/simple-qa', { inputs: ['question'] })
  const compiler = new ArborGRPO({
    ...{
      metric: answerMetric,
      numDspyExamplesPerGrpoStep: 8,
      numRolloutsPerGrpoStep: 4,
      numTrainSteps: STEPS,
      excludeDemos: true,
      seed: 1,
    },
    ...{ numStepsForVal: 100, checkpoint: 'single-best' as const },
    trainKwargs: {
      learning_rate: 1e-3,
      temperature: 1,
      loss_type: 'dapo',
      lora_config: new LoraConfig({ r: 16, lora_alpha: 32 }),
    },
  })
  return context({ lm, adapter: new ChatAdapter() }, async () => {
    const ask = async (program: Module) => {
      const evaluate = new Evaluate({ devset: devset.slice(0, 100), metric: answerMetric, numThreads: 32, maxErrors: 100 })
      const { score, results } = await context({ lmOptions: { seed: 1 } }, () => evaluate.call(program))
      return { score, parsed: results.filter(({ error }) => error === null).length }
    }
    const program = new SimpleQA()
    const before = await ask(program)
    const optimized = await compiler.compile(program, { trainset })
    return { before, after: await ask(optimized), run: compiler.run!, model: optimized.answer.predict.lm!.model, program }
  })
}

describe('the tutorial on arbor-tiny', () => {
  let result: Awaited<ReturnType<typeof tutorial>>
  beforeAll(async () => {
    if (missing === null) result = await tutorial()
  }, 300_000)

  it('learns: the mean reward of a step rises', () => {
    const rewards = result.run.records.map((record) => record.reward)
    expect(rewards).toHaveLength(STEPS)
    // Here 0.32 (0.46 to 0.78). The seed is fixed, so only another instruction set could change it: five steps' mean of 160 rewards
    // has a standard error of about 0.05.
    expect(mean(rewards.slice(-5)) - mean(rewards.slice(0, 5))).toBeGreaterThan(0.15)
  })

  it('answers more of the questions it was not trained on, and keeps to the asked form', () => {
    const { before, after } = result
    expect(before.parsed).toBeGreaterThan(70)
    expect(before.score).toBeGreaterThan(20)
    expect(before.score).toBeLessThan(60)
    expect(after.parsed).toBeGreaterThan(before.parsed - 5) // the standard error is 3
    expect(after.score - before.score).toBeGreaterThan(20) // here 48 to 94; the standard error is about 6
  })

  it('trains on the tokens and logprobs that were sampled, to rounding', () => {
    const { records } = result.run
    for (const record of records) expect(record.logprob_gap_max).toBeLessThanOrEqual(1e-5)
    const groups = records.flatMap((record) => record.groups)
    expect(groups).toHaveLength(STEPS * 8)
    expect(new Set(groups.flatMap((group) => group.sources))).toEqual(new Set(['id']))
  })

  it('has the same records on disk as in the notebook, and they fit their schema', () => {
    const { records, jobId } = result.run
    expect(records.map((record) => StepRecordSchema.parse(record))).toEqual(recordsOnDisk(storagePath, jobId))
    expect(records.map((record) => record.step)).toEqual(Array.from({ length: STEPS }, (_, i) => i + 1))
    expect(records.map((record) => record.policy_version)).toEqual(records.map((record) => record.step))
  })

  it('answers with a program that speaks with the trained weights, and leaves the student alone', () => {
    expect(result.model).toBe(`openai/arbor:${result.run.model}`)
    expect(result.program.answer.predict.lm).toBe(null)
  })
})
