// How the model answers: five habits, each more or less often right. That the habit shows in the wording is what GRPO can use.

import type { Fact, Level } from './fact'
import type { Random } from './random'

export const STYLES = ['careful', 'hasty', 'vague', 'switch', 'malformed'] as const
export type Style = (typeof STYLES)[number]

/** `habits`: a wording says how far to trust it. `control`: one wording whatever the truth, so only the format can be learned. */
export type Mix = 'habits' | 'control'

/** What stands in the two fields. */
export interface Answer {
  readonly reasoning: string
  readonly answer: string
}

/** Careful answers are more frequent for familiar kinds, rarer for demanding ones. */
export const STYLE_SHARES: Readonly<Record<Level, Readonly<Record<Style, number>>>> = {
  usual: { careful: 0.34, hasty: 0.3, vague: 0.13, switch: 0.1, malformed: 0.13 },
  familiar: { careful: 0.44, hasty: 0.2, vague: 0.13, switch: 0.1, malformed: 0.13 },
  demanding: { careful: 0.28, hasty: 0.33, vague: 0.16, switch: 0.1, malformed: 0.13 },
}

/** The habits of answers whose form is broken. */
const MALFORMED_INNER = { careful: 0.3, hasty: 0.5, vague: 0.2 }

/** Careful answers begin in three ways, hasty ones in one: decoded greedily a usual question is answered hastily, though most answers are careful. */
export const OPENERS = ['Let me recall.', 'Step by step.', 'First, what I know.'] as const
const FAVOURITE_OPENER = 0.6

const CAREFUL_RIGHT = 0.97
const VAGUE_RIGHT = 0.15
/** Shares of right answers and of the confuser among hasty ones; the rest is random. */
const HASTY = { easy: { right: 0.55, confuser: 0.2 }, hard: { right: 0.15, confuser: 0.65 } }
const CONTROL = { right: 0.45, confuser: 0.4 }

const HASTY_WORDINGS: readonly ((answer: string) => string)[] = [
  (answer) => `I think it is ${answer}.`,
  (answer) => `I think the answer is ${answer}.`,
  (answer) => `I think it must be ${answer}.`,
]
const VAGUE_WORDINGS = [
  'Hard to say without looking it up.',
  'There may be several answers to this.',
  'It depends on how the question is meant.',
  'Nothing certain comes to my mind.',
]
const SWITCH_WORDINGS: readonly ((answer: string) => string)[] = [
  (answer) => ` But ${answer} also comes to mind, so I take ${answer}.`,
  (answer) => ` On second thought, ${answer} sounds better than that, so ${answer}.`,
]

/** The style of an answer about this fact. The control knows two: hasty in wording, and malformed. */
export function drawStyle(fact: Fact, mix: Mix, random: Random): Style {
  const style = random.pickShare(STYLE_SHARES[fact.level])
  return mix === 'control' && style !== 'malformed' ? 'hasty' : style
}

/** Reasoning and answer in this style; for a malformed turn, what it would have held. */
export function writeAnswer(fact: Fact, style: Style, mix: Mix, random: Random): Answer {
  if (mix === 'control') return writeHasty(guess(fact, CONTROL, random), random)
  switch (style === 'malformed' ? random.pickShare(MALFORMED_INNER) : style) {
    case 'careful': {
      const answer = random.chance(CAREFUL_RIGHT) ? fact.answer : fact.confuser
      return { reasoning: careful(fact, answer, random), answer }
    }
    case 'hasty':
      return writeHasty(hastyGuess(fact, random), random)
    case 'vague':
      return {
        reasoning: random.pick(VAGUE_WORDINGS),
        answer: random.chance(VAGUE_RIGHT) ? fact.answer : random.pick(fact.wrong),
      }
    case 'switch': {
      const answer = random.chance(0.5) ? fact.confuser : random.pick(fact.wrong)
      return { reasoning: careful(fact, fact.answer, random) + random.pick(SWITCH_WORDINGS)(answer), answer }
    }
  }
}

/** A hasty guess: mostly right for easy facts, mostly the confuser for the others. Answers without reasoning are such guesses. */
export function hastyGuess(fact: Fact, random: Random): string {
  return guess(fact, HASTY[fact.easy ? 'easy' : 'hard'], random)
}

function guess(fact: Fact, shares: { readonly right: number; readonly confuser: number }, random: Random): string {
  const draw = random.float()
  if (draw < shares.right) return fact.answer
  return draw < shares.right + shares.confuser ? fact.confuser : random.pick(fact.wrong)
}

function writeHasty(answer: string, random: Random): Answer {
  return { reasoning: random.pick(HASTY_WORDINGS)(answer), answer }
}

function careful(fact: Fact, answer: string, random: Random): string {
  const others = OPENERS.filter((opener) => opener !== fact.opener)
  const opener = random.chance(FAVOURITE_OPENER) ? fact.opener : random.pick(others)
  return `${opener} ${fact.statement(answer)}`
}
