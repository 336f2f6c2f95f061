// SIMBA and GEPA search as dspy's do: the same prompts in the same order, the same random draws, the same programs in the end.

import { beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { GEPA, SIMBA } from '../../src/optimize'
import { context } from '../../src/program'
import { noPeers, python, SLOW } from './python'
import { examples, HashLM, type Mode, score, stateOf, twoSteps } from './searches'

interface Case {
  readonly optimizer: 'gepa' | 'simba'
  readonly mode: Mode
  readonly seed: number
  readonly train: number
  readonly val: number
  /** Of the student's first predictor. */
  readonly demos: number
  /** With Python's names. */
  readonly options: Readonly<Record<string, unknown>>
}

const gepa = (seed: number, sizes: { train: number; val: number }, options: Case['options'], mode: Mode = 'task'): Case => {
  return { optimizer: 'gepa', mode, seed, ...sizes, demos: 0, options }
}
const simba = (seed: number, sizes: { train: number; demos?: number }, options: Case['options'], mode: Mode = 'task'): Case => {
  return { optimizer: 'simba', mode, seed, val: 0, demos: 0, ...sizes, options }
}

const CASES: readonly Case[] = [
  gepa(2, { train: 6, val: 9 }, { max_metric_calls: 200, reflection_minibatch_size: 1, skip_perfect_score: false }),
  gepa(4, { train: 9, val: 5 }, { max_metric_calls: 200, reflection_minibatch_size: 3, candidate_selection_strategy: 'pareto' }),
  gepa(
    1,
    { train: 5, val: 6 },
    { max_metric_calls: 90, component_selector: 'all', candidate_selection_strategy: 'current_best' },
  ),
  gepa(0, { train: 7, val: 6 }, { max_metric_calls: 90, reflection_minibatch_size: 2, use_merge: false }, 'rough'),
  simba(0, { train: 8 }, { bsize: 3, num_candidates: 3, max_steps: 4, max_demos: 2 }),
  simba(3, { train: 6, demos: 30 }, { bsize: 2, num_candidates: 2, max_steps: 3, max_demos: 1, temperature_for_sampling: 1.0 }),
  simba(5, { train: 9 }, { bsize: 5, num_candidates: 2, max_steps: 3, max_demos: 0 }),
  simba(1, { train: 10 }, { bsize: 3, num_candidates: 4, max_steps: 2, max_demos: 4 }, 'rough'),
]

type Found = Record<string, unknown> & { readonly source?: string }

const missing = noPeers()
beforeEach(({ skip }) => skip(missing !== null, missing ?? ''))

let theirs: Found[]
beforeAll(async () => {
  if (missing === null) theirs = await python<Found[]>('searches.py', [...CASES])
}, SLOW)

function camel(options: Case['options']): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(options).map(([key, value]) => [key.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase()), value]),
  )
}

async function search(one: Case, source = ''): Promise<Found> {
  const lm = new HashLM(one.mode)
  const found = await context({ lm, adapterFallback: false }, () =>
    one.optimizer === 'gepa' ? runGepa(one) : runSimba(one, source),
  )
  return { ...found, asked: lm.asked }
}

async function runGepa({ seed, train, val, options }: Case): Promise<Found> {
  const writer = new HashLM('reflect')
  const scored: unknown[] = []
  const optimizer = new GEPA({
    metric: (example, prediction, _trace, predName) => {
      const value = score(example.question, prediction.answer)
      scored.push([example.question, predName ?? null, value])
      return { score: value, feedback: `fb ${example.question} ${prediction.answer}` }
    },
    reflectionLm: writer,
    numThreads: 1,
    seed,
    ...camel(options),
  })
  const best = await optimizer.compile(twoSteps(), { trainset: examples(train), valset: examples(val, 100) })
  const found = best.detailedResults
  return {
    best: stateOf(best),
    candidates: found.candidates.map(stateOf),
    parents: found.parents,
    scores: found.valSubscores,
    discovery: found.discoveryEvalCounts,
    metric_calls: found.totalMetricCalls,
    scored,
    written: writer.asked,
  }
}

async function runSimba({ seed, train, demos, options }: Case, source: string): Promise<Found> {
  const writer = new HashLM('prompt')
  const student = twoSteps(source)
  student.a.demos = Array.from({ length: demos }, (_, i) => ({ question: `z${i}`, hint: 'h' }))
  const metric = (example: { question?: string }, prediction: { answer?: string } | null) =>
    prediction === null ? 0 : score(example.question!, prediction.answer!)
  const optimizer = new SIMBA({ metric, promptModel: writer, numThreads: 1, ...camel(options) })
  const best = await optimizer.compile(student, { trainset: examples(train), seed })
  const mean = (scores: readonly (number | boolean)[]) =>
    scores.reduce<number>((sum, one) => sum + Number(one), 0) / scores.length
  return {
    best: stateOf(best),
    candidates: best.candidatePrograms.map(({ program }) => stateOf(program)),
    scores: best.candidatePrograms.map(({ subscores }) => mean(subscores!)),
    written: writer.asked,
    source,
  }
}

describe.each(CASES.map((one, i) => [i, one.optimizer, one] as const))('case %i, %s', (i, _, one) => {
  it('asks, scores and ends as in Python', async () => {
    const ours = await search(one, theirs[i]!.source)
    expect(ours['written']).toEqual(theirs[i]!['written'])
    expect(ours).toEqual(theirs[i])
  })
})

it('merges happen among these cases', () => {
  const lineages = theirs.flatMap((found) => (found['parents'] as (number | null)[][] | undefined) ?? [])
  expect(lineages.some((parents) => parents.length === 2)).toBe(true)
})
