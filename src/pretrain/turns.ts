// A turn: a question in DSPy's ChatAdapter prompt, and the assistant's text, whose form may be broken.

import { ChainOfThought } from '../program/chain-of-thought'
import { ChatAdapter } from '../program/chat-adapter'
import { Predict } from '../program/predict'
import type { Signature } from '../program/signature'
import { drawArithmetic } from './arithmetic'
import type { Fact } from './fact'
import { symbolicFacts } from './facts'
import type { Random } from './random'
import { type Answer, drawStyle, hastyGuess, type Mix, type Style, writeAnswer } from './styles'

/** The tutorial's program, or the same without reasoning. */
export type Program = 'ChainOfThought' | 'Predict'

export interface Turn {
  readonly fact: Fact
  readonly question: string
  readonly style: Style
  /** The assistant's text. */
  readonly text: string
}

export interface TurnOptions {
  readonly program: Program
  readonly mix: Mix
  /** null: drawn for this turn. */
  readonly style: Style | null
  /** Whether the form may be broken; a demonstration is always well-formed. */
  readonly mayBreak: boolean
}

const ARITHMETIC_SHARE = 0.3
const BARE_SHARE = 0.13

/** Ways to break the form. DSPy reads the last one all the same. */
export const BREAKS = {
  plain: 0.35,
  'answer label': 0.25,
  'no answer': 0.15,
  'no reasoning header': 0.15,
  'no end': 0.1,
} as const
export type Break = keyof typeof BREAKS

const adapter = new ChatAdapter()
const SIGNATURES: Readonly<Record<Program, Signature>> = {
  ChainOfThought: new ChainOfThought('question -> answer').signature as unknown as Signature,
  Predict: new Predict('question -> answer').signature as unknown as Signature,
}
const SYSTEM: Readonly<Record<Program, string>> = {
  ChainOfThought: adapter.formatSystemMessage(SIGNATURES.ChainOfThought),
  Predict: adapter.formatSystemMessage(SIGNATURES.Predict),
}

/** The system turn: the same for all questions to a program. */
export function systemText(program: Program): string {
  return SYSTEM[program]
}

/** The user turn: as a request it ends by saying what to answer, as a demonstration it doesn't. */
export function questionText(program: Program, question: string, isRequest: boolean): string {
  return adapter.formatUserMessage(SIGNATURES[program], { question }, { isRequest })
}

/** A turn about a fact drawn from all of them. */
export function drawTurn(random: Random, options: TurnOptions): Turn {
  const { program, mix, mayBreak } = options
  const fact = random.chance(ARITHMETIC_SHARE) ? drawArithmetic(random) : random.pick(symbolicFacts())
  const question = random.pick(fact.questions)
  const drawn = options.style ?? (program === 'Predict' ? drawPredictStyle(random) : drawStyle(fact, mix, random))
  const style = drawn === 'malformed' && !mayBreak ? 'hasty' : drawn
  if (program === 'Predict') return { fact, question, style, text: writePredict(hastyGuess(fact, random), style) }
  const answer = writeAnswer(fact, style, mix, random)
  const text = style === 'malformed' ? writeBroken(answer, random.pickShare(BREAKS)) : wellFormed('ChainOfThought', answer)
  return { fact, question, style, text }
}

/** Without reasoning there is no habit to see: an answer is a guess, or bare text. */
export function drawPredictStyle(random: Random): Style {
  return random.chance(BARE_SHARE) ? 'malformed' : 'hasty'
}

function writePredict(answer: string, style: Style): string {
  return style === 'malformed' ? `${answer}\n` : wellFormed('Predict', { answer })
}

function wellFormed(program: Program, fields: Partial<Answer>): string {
  return adapter.formatAssistantMessage(SIGNATURES[program], fields)
}

const REASONING = '[[ ## reasoning ## ]]\n'
const ANSWER = '[[ ## answer ## ]]\n'
const END = '[[ ## completed ## ]]\n'

function writeBroken({ reasoning, answer }: Answer, form: Break): string {
  switch (form) {
    case 'plain':
      return `${reasoning} ${answer}\n`
    case 'answer label':
      return `${REASONING}${reasoning}\n\nAnswer: ${answer}\n\n${END}`
    case 'no answer':
      return `${REASONING}${reasoning}\n\n${END}`
    case 'no reasoning header':
      return `${reasoning}\n\n${ANSWER}${answer}\n\n${END}`
    case 'no end':
      return `${REASONING}${reasoning}\n\n${ANSWER}${answer}\n`
  }
}
