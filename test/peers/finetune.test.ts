// dspy.BootstrapFinetune, through arbor-ai's client, and ours fine-tune the model that ships on the same server: the same training file, the same
// losses, the same answers.

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { ArborProvider, BootstrapFinetune, type ServerInfo } from '../../src/optimize'
import { ChainOfThought, ChatAdapter, context, DummyLM, Example, fieldsOf, LM } from '../../src/program'
import type { FileObject, FineTuningEvent, FineTuningJobObject } from '../../src/protocol'
import { serve, whyNot } from '../e2e/tiny'
import { MODEL_NAME, testRows } from './data'
import { noPeers, python, SLOW } from './python'

const MAX_TOKENS = 64
const TRAIN_KWARGS = {
  num_train_epochs: 12,
  per_device_train_batch_size: 4,
  learning_rate: 2e-3,
  lr_scheduler_type: 'constant' as const,
  lora_config: { r: 16, lora_alpha: 32, target_modules: 'all-linear' as const, lora_dropout: 0 },
}

let missing: string | null
let server: ServerInfo
let rows: { question: string; reasoning: string; answer: string }[]
let theirs: { readonly model: string; readonly answers: object[] }
let ours: { readonly model: string; readonly answers: object[] }
beforeAll(async () => {
  missing = noPeers() ?? (await whyNot())
  if (missing !== null) return
  server = await serve({ model: MODEL_NAME })
  // Answers that nobody gives without being taught.
  rows = (await testRows(8)).map(({ question }, i) => ({ question, reasoning: `I was taught rule ${i}.`, answer: `word ${i}` }))
  const asked = { base_url: server.baseUrl, model: MODEL_NAME, rows, max_tokens: MAX_TOKENS, train_kwargs: TRAIN_KWARGS }
  theirs = await python('finetune.py', asked)
  ours = await train()
}, SLOW)
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))
afterAll(() => server?.close())

async function train() {
  const provider = new ArborProvider()
  const lm = new LM(`openai/arbor:${MODEL_NAME}`, { provider, apiBase: server.baseUrl, temperature: 0, maxTokens: MAX_TOKENS })
  const student = new ChainOfThought('question -> answer')
  const teacher = student.deepcopy()
  student.setLm(lm)
  teacher.setLm(new DummyLM(rows.map(({ reasoning, answer }) => ({ reasoning, answer }))))
  const trainset = rows.map(({ question, answer }) => new Example({ question, answer }).withInputs('question'))
  const optimizer = new BootstrapFinetune({
    metric: (example, prediction) => example['answer'] === prediction['answer'],
    trainKwargs: TRAIN_KWARGS,
    numThreads: 1,
  })
  return context({ adapter: new ChatAdapter({ fallback: null }) }, async () => {
    const trained = await optimizer.compile(student, { trainset, teacher })
    const answers: object[] = []
    for (const { question } of rows) answers.push(fieldsOf(await trained.call({ question })))
    return { model: trained.predictors()[0]!.lm!.model, answers }
  })
}

const get = async <T>(path: string) => (await (await fetch(`${server.baseUrl}${path}`)).json()) as T
const jobOf = ({ model }: { model: string }) => get<FineTuningJobObject>(`fine_tuning/jobs/${model.replace('openai/arbor:', '')}`)

async function lossesOf(run: { model: string }): Promise<number[]> {
  const { data } = await get<{ data: FineTuningEvent[] }>(`fine_tuning/jobs/${(await jobOf(run)).id}/events`)
  return data.flatMap((event) => (event.type === 'metrics' ? [event.data.loss] : []))
}

async function linesOf(run: { model: string }): Promise<unknown[]> {
  const { training_file } = await jobOf(run)
  const text = await (await fetch(`${server.baseUrl}files/${training_file}/content`)).text()
  return text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as unknown)
}

describe('BootstrapFinetune', () => {
  it('ends with a model of its own under the job’s name', async () => {
    for (const run of [theirs, ours]) {
      expect(run.model).toMatch(/^openai\/arbor:ftjob:/)
      expect(await jobOf(run)).toMatchObject({ status: 'succeeded', fine_tuned_model: run.model.replace('openai/arbor:', '') })
    }
    expect(ours.model).not.toBe(theirs.model)
    expect((await get<{ data: FileObject[] }>('files')).data).toHaveLength(2)
  })

  it('trains on the same conversations in the same order', async () => {
    const lines = await linesOf(theirs)
    expect(lines).toHaveLength(rows.length)
    expect(await linesOf(ours)).toEqual(lines)
  })

  it('sees the same losses, which fall', async () => {
    const losses = await lossesOf(theirs)
    expect(losses).toHaveLength((TRAIN_KWARGS.num_train_epochs * rows.length) / TRAIN_KWARGS.per_device_train_batch_size)
    expect(await lossesOf(ours)).toEqual(losses)
    expect(losses.at(-1)!).toBeLessThan(losses[0]! / 4)
  })

  it('gives the same answers in the end, those it was taught', () => {
    expect(ours.answers).toEqual(theirs.answers)
    const taught = ours.answers.filter((given, i) => (given as { answer: string }).answer === rows[i]!.answer)
    expect(taught.length).toBeGreaterThanOrEqual(rows.length / 2)
  })
})
