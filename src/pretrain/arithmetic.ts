// Arithmetic facts: no list could hold them, so they are made when they are drawn. The slips are those people make.

import { accepts, EASY_SHARE, type Fact, type Level } from './fact'
import type { Random } from './random'

type Pair = readonly [number, number]

interface Operation {
  readonly kind: string
  /** Of the arithmetic questions. */
  readonly share: number
  readonly level: Level
  readonly questions: readonly string[]
  readonly pairs: readonly Pair[]
  /** Whether the order of the numbers makes another fact. */
  readonly ordered: boolean
  result(a: number, b: number): number
  /** The usual slip. */
  slip(a: number, b: number): number
  /** Whether the slip lies near. */
  isHard(a: number, b: number): boolean
  statement(a: number, b: number, answer: string): string
}

const ones = (x: number): number => x % 10
const tens = (x: number): number => x - ones(x)

const OPERATIONS: readonly Operation[] = [
  {
    kind: 'sum',
    share: 0.3,
    level: 'demanding',
    questions: ['What is {a} plus {b}?', 'What is {a} + {b}?', 'Add {a} and {b}.'],
    pairs: allPairs([10, 89], [10, 89], (a, b) => a + b < 100),
    ordered: false,
    result: (a, b) => a + b,
    slip: (a, b) => a + b - 10, // the carry forgotten
    isHard: (a, b) => ones(a) + ones(b) >= 10,
    statement: (a, b, answer) =>
      `${tens(a)} + ${tens(b)} = ${tens(a) + tens(b)} and ${ones(a)} + ${ones(b)} = ${ones(a) + ones(b)}, so ${a} + ${b} = ${answer}.`,
  },
  {
    kind: 'difference',
    share: 0.3,
    level: 'demanding',
    questions: ['What is {a} minus {b}?', 'What is {a} - {b}?', 'Subtract {b} from {a}.'],
    pairs: allPairs([20, 99], [10, 89], (a, b) => a - b >= 10),
    ordered: true,
    result: (a, b) => a - b,
    slip: (a, b) => a - b + 10, // the borrowed ten forgotten
    isHard: (a, b) => ones(a) < ones(b),
    statement: (a, b, answer) =>
      `${a} - ${tens(b)} = ${a - tens(b)} and ${a - tens(b)} - ${ones(b)} = ${answer}, so ${a} - ${b} = ${answer}.`,
  },
  {
    kind: 'product',
    share: 0.2,
    level: 'demanding',
    questions: ['What is {a} times {b}?', 'What is {a} x {b}?', 'Multiply {a} by {b}.'],
    pairs: allPairs([2, 12], [2, 9], (a, b) => a * b >= 10), // one digit would be part of many a wrong answer
    ordered: false,
    result: (a, b) => a * b,
    slip: (a, b) => a * b + b, // one row too many in the table
    isHard: (a, b) => a >= 6 || b >= 6,
    statement: productStatement,
  },
  comparison('larger', Math.max),
  comparison('smaller', Math.min),
]

function productStatement(a: number, b: number, answer: string): string {
  const base = a > 10 ? 10 : 5
  if (a <= 5 || a === 10) return `${a} x ${b} = ${answer}.`
  return `${base} x ${b} = ${base * b} and ${a - base} x ${b} = ${(a - base) * b}, so ${a} x ${b} = ${answer}.`
}

function comparison(kind: 'larger' | 'smaller', result: (a: number, b: number) => number): Operation {
  const other = (a: number, b: number): number => a + b - result(a, b)
  return {
    kind,
    share: 0.1,
    level: 'usual',
    questions: [
      `Which number is ${kind}, {a} or {b}?`,
      `Which is the ${kind} of {a} and {b}?`,
      `Choose the ${kind} number: {a} or {b}.`,
    ],
    pairs: allPairs([10, 99], [10, 99], (a, b) => a !== b),
    ordered: false,
    result,
    slip: other,
    isHard: (a, b) => Math.sign(ones(a) - ones(b)) !== Math.sign(a - b), // the last digits say otherwise
    statement: (a, b, answer) => `${answer} is ${kind} than ${Number(answer) === other(a, b) ? result(a, b) : other(a, b)}.`,
  }
}

function allPairs(first: Pair, second: Pair, keep: (a: number, b: number) => boolean): Pair[] {
  const range = ([from, to]: Pair): number[] => Array.from({ length: to - from + 1 }, (_, i) => from + i)
  return range(first).flatMap((a) => range(second).flatMap((b) => (keep(a, b) ? [[a, b] as const] : [])))
}

const SHARES = Object.fromEntries(OPERATIONS.map(({ kind, share }) => [kind, share]))
const BY_KIND = new Map(
  OPERATIONS.map((operation) => {
    const hard = operation.pairs.filter(([a, b]) => operation.isHard(a, b))
    return [operation.kind, { operation, hard, easy: operation.pairs.filter((pair) => !hard.includes(pair)) }]
  }),
)

/** A fact drawn afresh; as many of them are easy as of all other facts. */
export function drawArithmetic(random: Random): Fact {
  const { operation, easy, hard } = BY_KIND.get(random.pickShare(SHARES))!
  return makeFact(operation, random.pick(random.chance(EASY_SHARE) ? easy : hard))
}

/** Every fact that can be drawn, by kind. Where the order of the numbers makes no difference each pair is there once. */
export function arithmeticFacts(): Map<string, Fact[]> {
  const once = ({ pairs, ordered }: Operation): readonly Pair[] => {
    const seen = new Set<string>()
    const isNew = (key: string): boolean => !seen.has(key) && seen.add(key) !== undefined
    return ordered ? pairs : pairs.filter(([a, b]) => isNew(`${Math.min(a, b)} ${Math.max(a, b)}`))
  }
  return new Map(OPERATIONS.map((operation) => [operation.kind, once(operation).map((pair) => makeFact(operation, pair))]))
}

function makeFact(operation: Operation, [a, b]: Pair): Fact {
  const { kind, level } = operation
  const result = operation.result(a, b)
  const answer = String(result)
  const confuser = String(operation.slip(a, b))
  const near = [-20, -11, -10, -9, -2, -1, 1, 2, 9, 10, 11, 20].map((offset) => String(result + offset))
  const wrong = [confuser, ...near.filter((other) => other !== confuser && Number(other) > 0 && !accepts(answer, other))]
  return {
    id: `${kind}: ${a}, ${b}`,
    kind,
    level,
    opener: 'Step by step.',
    questions: operation.questions.map((question) => question.replace('{a}', String(a)).replace('{b}', String(b))),
    answer,
    easy: !operation.isHard(a, b),
    confuser,
    wrong,
    statement: (given) => operation.statement(a, b, given),
  }
}
