// The question sets of data/simple-qa: the same facts as in pretraining, one question a fact, split by fact.

import { arithmeticFacts } from './arithmetic'
import { EASY_SHARE, type Fact } from './fact'
import { symbolicFacts } from './facts'
import { Random } from './random'

export interface QuestionRow {
  readonly question: string
  readonly answer: string
  readonly category: string
}

export interface QuestionSets {
  readonly train: readonly QuestionRow[]
  readonly dev: readonly QuestionRow[]
  readonly test: readonly QuestionRow[]
  /** Worked examples for a prompt, about facts of none of the sets. */
  readonly demos: readonly { readonly question: string; readonly reasoning: string; readonly answer: string }[]
}

const SEED = 5
const DEV = 200
const TEST = 300
const ARITHMETIC = { sum: 160, difference: 160, product: 50, larger: 70, smaller: 70 }
const DEMOS = [
  { question: 'What is the capital of France?', reasoning: 'The capital of France is Paris.', answer: 'Paris' },
  { question: 'What is 7 plus 5?', reasoning: '7 plus 5 is 12.', answer: '12' },
]

/** Train, dev and test, with the kinds of questions mixed within each and in the same shares in all. Always the same rows. */
export function questionSets(): QuestionSets {
  const { train, dev, test } = splitFacts()
  const rows = (name: string, facts: readonly Fact[]): QuestionRow[] => new Random(name, SEED).shuffle(facts).map(rowOf)
  return { train: rows('train', train), dev: rows('dev', dev), test: rows('test', test), demos: DEMOS }
}

/** The facts of each split, ordered by kind. */
export function splitFacts(): { readonly train: Fact[]; readonly dev: Fact[]; readonly test: Fact[] } {
  const shown = new Set(DEMOS.map((demo) => demo.question))
  const symbolic = symbolicFacts().filter((fact) => !fact.questions.some((question) => shown.has(question)))
  const arithmetic = [...arithmeticFacts()].flatMap(([kind, facts]) => sample(facts, ARITHMETIC[kind as keyof typeof ARITHMETIC]))
  const [test, others] = spread(ordered([...symbolic, ...arithmetic]), TEST)
  const [dev, train] = spread(others, DEV)
  return { train, dev, test }
}

/** Facts of one kind, as many easy ones among them as elsewhere, if there are so many. */
function sample(facts: readonly Fact[], count: number): Fact[] {
  const shuffled = new Random('sample', SEED).shuffle(facts)
  const easy = shuffled.filter((fact) => fact.easy).slice(0, Math.round(count * EASY_SHARE))
  return [...easy, ...shuffled.filter((fact) => !fact.easy).slice(0, count - easy.length)]
}

/** By kind, the easy ones first, otherwise shuffled: taking every n-th of this list keeps the shares of kinds and of easy facts. */
function ordered(facts: readonly Fact[]): Fact[] {
  const kinds = [...new Set(facts.map((fact) => fact.kind))]
  const shuffled = new Random('order', SEED).shuffle(facts)
  return kinds.flatMap((kind) =>
    [true, false].flatMap((easy) => shuffled.filter((fact) => fact.kind === kind && fact.easy === easy)),
  )
}

/** `count` of the list, evenly spread over it, and the others. */
function spread(list: readonly Fact[], count: number): [taken: Fact[], others: Fact[]] {
  const isTaken = (i: number): boolean => Math.floor(((i + 1) * count) / list.length) > Math.floor((i * count) / list.length)
  return [list.filter((_, i) => isTaken(i)), list.filter((_, i) => !isTaken(i))]
}

/** One of the fact's wordings, always the same. */
function rowOf(fact: Fact): QuestionRow {
  const question = new Random('wording', SEED, fact.id).pick(fact.questions)
  return { question, answer: fact.answer, category: fact.kind }
}
