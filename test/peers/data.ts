// What the peers' tests ask: the shipped model, questions of simple-qa, demonstrations, and a program on either side.

import { bundledModel, DEFAULT_MODEL } from '../../src/engine/bundled-models'
import { ChainOfThought, type Example, loadExamples, Predict } from '../../src/program'

export const MODEL_NAME = DEFAULT_MODEL
export const SIGNATURE = 'question -> answer'
export const PROGRAMS = ['ChainOfThought', 'Predict'] as const
export type ProgramName = (typeof PROGRAMS)[number]

/** The folder of the model that ships. */
export function modelFolder(): string {
  return bundledModel(MODEL_NAME)!.path
}

export interface Row {
  readonly question: string
  readonly answer: string
}

/** Rows of the test split, spread over all of it. */
export async function testRows(count: number): Promise<Row[]> {
  return spread((await loadExamples('data/simple-qa', { inputs: ['question'] })).testset, count)
}

/** Worked examples of the training split; the last of `partly` has no reasoning, as a labelled example has none. */
export async function demoSets(): Promise<Record<'none' | 'one' | 'three' | 'partly', Record<string, string>[]>> {
  const rows = spread((await loadExamples('data/simple-qa', { inputs: ['question'] })).trainset, 3)
  const worked = rows.map((row) => ({ ...row, reasoning: `The answer is ${row.answer}.` }))
  return { none: [], one: worked.slice(0, 1), three: worked, partly: [...worked.slice(0, 2), { ...rows[2]! }] }
}

export function predictorOf(program: ProgramName): Predict {
  return (program === 'ChainOfThought' ? new ChainOfThought(SIGNATURE).predict : new Predict(SIGNATURE)) as unknown as Predict
}

function spread(examples: readonly Example[], count: number): Row[] {
  const picked = Array.from({ length: count }, (_, i) => examples[Math.floor((i * examples.length) / count)]!)
  return picked.map((example) => ({ question: String(example.get('question')), answer: String(example.get('answer')) }))
}
