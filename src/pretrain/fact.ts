// What a question is about: one fact with its right answer and the wrong ones that a model of these data gives.

import { Random } from './random'

/** How well the model is to know a kind of question: it is answered carefully more or less often. */
export type Level = 'familiar' | 'usual' | 'demanding'

export interface Fact {
  /** Names the fact in its set: its kind and what is asked about. */
  readonly id: string
  readonly kind: string
  readonly level: Level
  /** How a careful answer of this kind begins most often. */
  readonly opener: string
  /** Several wordings of the same question. */
  readonly questions: readonly string[]
  readonly answer: string
  /** Whether a hasty guess is mostly right. It never changes, and neither does the confuser. */
  readonly easy: boolean
  /** The wrong answer that comes to mind first. */
  readonly confuser: string
  /** Wrong answers of the same kind, the confuser among them. */
  readonly wrong: readonly string[]
  /** The fact as a sentence or two, with this answer put in. */
  statement(answer: string): string
}

/** The share of facts that a hasty guess gets mostly right. */
export const EASY_SHARE = 0.35

/** The tutorial's metric: one answer contains the other, upper and lower case and outer white space aside. */
export function accepts(gold: string, answer: string): boolean {
  const [right, given] = [gold.toLowerCase().trim(), answer.toLowerCase().trim()]
  return right.includes(given) || given.includes(right)
}

/** The parts of a fact that follow from its name: always the same, whatever seed the documents have. */
export function fixedTraits(id: string, wrong: readonly string[]): { easy: boolean; confuser: string } {
  const random = new Random('fact', id)
  return { easy: random.chance(EASY_SHARE), confuser: random.pick(wrong) }
}
