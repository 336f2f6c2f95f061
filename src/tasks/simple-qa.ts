// Short questions with one short answer, from data/simple-qa: the program of the tutorial, metrics, and the examples in three splits.

import { ChainOfThought, type Example, type Loose, loadDemos, loadExamples, type Metric, Module, PythonRandom } from '../program'

/** Thinks, then answers. @example const { answer } = await new SimpleQA().call({ question: 'What is the capital of France?' }) */
export class SimpleQA extends Module {
  answer = new ChainOfThought('question -> answer')
  forward({ question }: { question: string }) {
    return this.answer.call({ question })
  }
}

/** The program; with `demos` it holds the two worked examples that are in none of the splits, for models that need to see the format. */
export async function simpleQAProgram(options: { readonly demos?: boolean } = {}): Promise<SimpleQA> {
  const program = new SimpleQA()
  if (options.demos) program.answer.demos = await loadDemos('data/simple-qa')
  return program
}

/** Right if the expected words occur in the answer one after the other: an empty or a partial answer earns nothing. */
export const answerMetric: Metric = (example, prediction) => ` ${plain(prediction)} `.includes(` ${plain(example)} `)

/** The same in words, for GEPA: what was expected, and how the answer differs. */
export function answerFeedback(example: Loose, prediction: Loose): { score: boolean; feedback: string } {
  const score = Boolean(answerMetric(example as Example, prediction))
  const given = JSON.stringify(String(prediction?.['answer'] ?? ''))
  const feedback = score
    ? `Right: the answer ${given} holds ${example['answer']}.`
    : `Wrong: the answer is ${example['answer']}, but the assistant answered ${given}.`
  return { score, feedback }
}

function plain(row: Loose | null): string {
  const words = String(row?.['answer'] ?? '')
    .toLowerCase()
    .match(/[\p{L}\p{N}]+/gu)
  return words?.join(' ') ?? ''
}

export interface SimpleQASizes {
  readonly train: number
  readonly val: number
  readonly test: number
  /** Kinds of question that are asked; absent: all. A model learns from those it is sometimes right about. */
  readonly categories?: readonly string[]
}

/** So many training examples drawn by the seed, and the first ones of the validation and test questions. */
export async function loadSimpleQA(sizes: SimpleQASizes, seed = 0): Promise<Record<'train' | 'val' | 'test', Example[]>> {
  const where = ({ category }: Loose) => sizes.categories?.includes(String(category)) ?? true
  const { trainset, devset, testset } = await loadExamples('data/simple-qa', { inputs: ['question'], where })
  const train = new PythonRandom(seed).sample(trainset, Math.min(sizes.train, trainset.length))
  return { train, val: devset.slice(0, sizes.val), test: testset.slice(0, sizes.test) }
}
