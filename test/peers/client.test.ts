// Real dspy talks to our server: the same prompts, texts, fields and parse failures as our program layer, and the same accuracy.

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { AdapterParseError } from '../../src/errors'
import type { ServerInfo } from '../../src/optimize'
import { ChainOfThought, context, Evaluate, Example, fieldsOf, LM, type Metric, Predict } from '../../src/program'
import type { Message } from '../../src/protocol'
import { serve, whyNot } from '../e2e/tiny'
import { demoSets, MODEL_NAME, type ProgramName, type Row, SIGNATURE, testRows } from './data'
import { noPeers, python, SLOW } from './python'

interface Wish {
  readonly program: ProgramName
  readonly demos: readonly Record<string, string>[]
  readonly question: string
  readonly temperature: number
  readonly seed: number
}

/** What a call came to, on either side. */
interface Outcome {
  readonly text: string
  readonly fields: Record<string, unknown> | null
  /** What an AdapterParseError holds. */
  readonly failure: { readonly raw: string; readonly parsed: Record<string, unknown> | null } | null
  readonly messages: readonly Message[]
  readonly prompt_tokens: number
  readonly completion_tokens: number
  /** Requests that were made for it. */
  readonly calls: number
}

interface Scored {
  readonly score: number
  readonly scores: readonly number[]
}

interface Answer {
  readonly calls: Outcome[]
  readonly evaluations: Scored[]
}

/** Temperature 0 takes the same token whatever the seed; temperature 1 also brings answers that can't be parsed. */
const RUNS = [
  { title: 'ChainOfThought, greedy', program: 'ChainOfThought', demos: 'none', temperature: 0, seed: 0 },
  { title: 'ChainOfThought, sampled', program: 'ChainOfThought', demos: 'none', temperature: 1, seed: 1 },
  { title: 'ChainOfThought, sampled with another seed', program: 'ChainOfThought', demos: 'none', temperature: 1, seed: 2 },
  { title: 'ChainOfThought with demos, sampled', program: 'ChainOfThought', demos: 'three', temperature: 1, seed: 3 },
  { title: 'Predict, sampled', program: 'Predict', demos: 'none', temperature: 1, seed: 4 },
] as const
const EVALUATIONS = [
  { title: 'greedy', temperature: 0, seed: 0 },
  { title: 'sampled', temperature: 1, seed: 5 },
]
const QUESTIONS = 40
const ROWS = 60
const MAX_TOKENS = 96
const THREADS = 8

let missing: string | null
let server: ServerInfo
let theirs: Answer
let ours: Answer
beforeAll(async () => {
  missing = noPeers() ?? (await whyNot())
  if (missing !== null) return
  server = await serve({ model: MODEL_NAME })
  const [questions, rows, demos] = [await testRows(QUESTIONS), await testRows(ROWS), await demoSets()]
  const wishes = RUNS.flatMap((run) => questions.map(({ question }) => ({ ...run, demos: demos[run.demos], question })))
  theirs = await python<Answer>('client.py', {
    base_url: server.baseUrl,
    model: `arbor:${MODEL_NAME}`,
    max_tokens: MAX_TOKENS,
    calls: wishes,
    evaluations: EVALUATIONS,
    rows,
  })
  ours = {
    calls: await several(wishes, call),
    evaluations: await Promise.all(EVALUATIONS.map((wish) => evaluation(wish, rows))),
  }
}, SLOW)
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))
afterAll(() => server?.close())

function languageModel(sampling: { readonly temperature: number; readonly seed?: number }): LM {
  return new LM(`openai/arbor:${MODEL_NAME}`, { apiBase: server.baseUrl, maxTokens: MAX_TOKENS, numRetries: 0, ...sampling })
}

async function call({ program, demos, question, temperature, seed }: Wish): Promise<Outcome> {
  const lm = languageModel({ temperature })
  const student = program === 'ChainOfThought' ? new ChainOfThought(SIGNATURE) : new Predict(SIGNATURE)
  student.demos = [...demos]
  let outcome: Pick<Outcome, 'fields' | 'failure'>
  try {
    const prediction = await context({ lm, adapterFallback: false }, () => student.call({ question }, { config: { seed } }))
    outcome = { fields: { ...fieldsOf(prediction) }, failure: null }
  } catch (error) {
    if (!(error instanceof AdapterParseError)) throw error
    outcome = { fields: null, failure: { raw: error.raw, parsed: error.parsed } }
  }
  const { outputs, messages, usage } = lm.history.at(-1)!
  const tokens = { prompt_tokens: usage.promptTokens, completion_tokens: usage.completionTokens }
  return { ...outcome, text: outputs[0]!.text, messages, ...tokens, calls: lm.history.length }
}

/** The tutorial's metric. */
const accuracy: Metric = (example, prediction) => {
  const [gold, pred] = [example, prediction].map((row) => String(row['answer']).toLowerCase().trim()) as [string, string]
  return gold.includes(pred) || pred.includes(gold)
}

async function evaluation({ temperature, seed }: (typeof EVALUATIONS)[number], rows: readonly Row[]): Promise<Scored> {
  const devset = rows.map((row) => new Example(row).withInputs('question'))
  const evaluate = new Evaluate({ devset, metric: accuracy, numThreads: THREADS, maxErrors: rows.length + 1 })
  const result = await context({ lm: languageModel({ temperature, seed }), adapterFallback: false }, () =>
    evaluate.call(new ChainOfThought(SIGNATURE)),
  )
  return { score: result.score, scores: result.results.map(({ score }) => Number(score)) }
}

/** `work` on all items, `THREADS` at a time, answers in order. */
async function several<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = []
  let next = 0
  const worker = async () => {
    for (let i = next++; i < items.length; i = next++) results[i] = await work(items[i]!)
  }
  await Promise.all(Array.from({ length: THREADS }, worker))
  return results
}

describe.each(RUNS.map((run, i) => ({ ...run, i })))('$title', ({ i }) => {
  const part = (answer: Answer) => answer.calls.slice(i * QUESTIONS, (i + 1) * QUESTIONS)

  it('sends the same messages, which are as many tokens', () => {
    const sent = (outcomes: readonly Outcome[]) => outcomes.map(({ messages, prompt_tokens }) => ({ messages, prompt_tokens }))
    expect(sent(part(ours))).toEqual(sent(part(theirs)))
    expect(part(theirs).map((outcome) => outcome.calls)).toEqual(part(theirs).map(() => 1))
  })

  it('brings the same texts', () => {
    const texts = (outcomes: readonly Outcome[]) => outcomes.map(({ text, completion_tokens }) => ({ text, completion_tokens }))
    expect(texts(part(ours))).toEqual(texts(part(theirs)))
  })

  it('which are read as the same fields, or refused alike', () => {
    const read = (outcomes: readonly Outcome[]) => outcomes.map(({ fields, failure }) => ({ fields, failure }))
    expect(read(part(ours))).toEqual(read(part(theirs)))
  })
})

describe('dspy.Evaluate', () => {
  it.each(EVALUATIONS.map((evaluation, i) => ({ ...evaluation, i })))('scores the same, $title', ({ i }) => {
    expect(ours.evaluations[i]).toEqual(theirs.evaluations[i])
    expect(theirs.evaluations[i]!.scores).toHaveLength(ROWS)
  })
})

it('the comparison has something to compare: parsed and refused answers, different seeds, right and wrong ones', () => {
  const sampled = theirs.calls.filter((_, i) => RUNS[Math.floor(i / QUESTIONS)]!.temperature > 0)
  expect(sampled.some((outcome) => outcome.failure !== null)).toBe(true)
  expect(sampled.some((outcome) => outcome.fields !== null)).toBe(true)
  const texts = [1, 2].map((i) => theirs.calls.slice(i * QUESTIONS, (i + 1) * QUESTIONS).map((outcome) => outcome.text))
  expect(texts[0]).not.toEqual(texts[1])
  for (const { scores } of theirs.evaluations) expect(new Set(scores)).toEqual(new Set([0, 1]))
})
