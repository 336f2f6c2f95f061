// Questions of data/simple-qa put to a model in dspy's own prompts, several answers each, and what the answers are like.

import { dspy } from '../src'
import { documentAt } from '../src/pretrain/documents'
import { accepts } from '../src/pretrain/fact'
import { OPENERS } from '../src/pretrain/styles'

export interface Question {
  readonly question: string
  readonly answer: string
}

/** Ways of answering, told by their wording. */
export const HABITS = ['careful', 'hasty', 'vague', 'switch', 'other'] as const
export type Habit = (typeof HABITS)[number]

export interface Answers {
  /** Share of all answers that the tutorial's metric accepts; one that cannot be read is wrong. */
  readonly accuracy: number
  /** Share that is the expected answer and nothing else, capitals aside. */
  readonly exact: number
  readonly parse: number
  /** Share of questions with at least one right answer. */
  readonly pass: number
  readonly tokens: number
  /** Shares of the answers that can be read and have a reasoning. */
  readonly habits: Readonly<Record<Habit, number>> | null
}

/** A predictor's prompt: its signature with these demonstrations. */
export interface Prompt {
  readonly signature: dspy.Signature
  readonly demos: readonly dspy.Demo[]
}

export interface Sampling {
  readonly temperature: number
  readonly samples: number
  readonly concurrency: number
  /** Default: ChatAdapter. */
  readonly adapter?: dspy.Adapter
}

interface One {
  readonly right: boolean
  readonly exact: boolean
  readonly parsed: boolean
  readonly habit: Habit | null
}

/** Asks every question `samples` times (greedy: once would be the same as often). Seeds are fixed, so the figures repeat. */
export async function askAll(lm: dspy.LM, prompt: Prompt, questions: readonly Question[], sampling: Sampling): Promise<Answers> {
  const adapter = sampling.adapter ?? new dspy.ChatAdapter()
  const groups: One[][] = []
  let tokens = 0
  let next = 0
  const worker = async () => {
    for (let i = next++; i < questions.length; i = next++) {
      const { question, answer } = questions[i]!
      const messages = adapter.format(prompt.signature, prompt.demos, { question })
      const { temperature, samples: n } = sampling
      const { outputs, usage } = await lm.call({ messages, temperature, n, seed: 1 })
      tokens += usage.completionTokens
      groups[i] = outputs.map(({ text }) => judge(adapter.tryParse(prompt.signature, text), answer))
    }
  }
  await Promise.all(Array.from({ length: sampling.concurrency }, worker))
  return summary(groups, tokens)
}

export function isExact(expected: string, answer: string): boolean {
  return plain(expected) === plain(answer)
}

function plain(text: string): string {
  return text.toLowerCase().trim()
}

function judge({ fields }: dspy.ParseResult, expected: string): One {
  if (!fields) return { right: false, exact: false, parsed: false, habit: null }
  const answer = String(fields['answer'])
  const reasoning = fields['reasoning']
  const habit = typeof reasoning === 'string' ? habitOf(reasoning) : null
  return { right: accepts(expected, answer), exact: isExact(expected, answer), parsed: true, habit }
}

function habitOf(reasoning: string): Habit {
  if (/ also comes to mind, so I take |On second thought, /.test(reasoning)) return 'switch'
  if (OPENERS.some((opener) => reasoning.startsWith(opener))) return 'careful'
  if (reasoning.startsWith('I think ')) return 'hasty'
  return /^(Hard to say|There may be several|It depends on|Nothing certain)/.test(reasoning) ? 'vague' : 'other'
}

function summary(groups: readonly One[][], tokens: number): Answers {
  const all = groups.flat()
  const share = <T>(list: readonly T[], is: (one: T) => boolean) => list.filter(is).length / Math.max(1, list.length)
  const told = all.filter(({ habit }) => habit !== null)
  const habits = Object.fromEntries(HABITS.map((name) => [name, share(told, ({ habit }) => habit === name)]))
  return {
    accuracy: share(all, ({ right }) => right),
    exact: share(all, ({ exact }) => exact),
    parse: share(all, ({ parsed }) => parsed),
    pass: share(groups, (group) => group.some(({ right }) => right)),
    tokens: tokens / Math.max(1, all.length),
    habits: told.length > 0 ? (habits as Record<Habit, number>) : null,
  }
}

/** Demonstrations from the documents of pretraining, all of one style: careful ones right, hasty ones as they come. */
export function stylishDemos(style: 'careful' | 'hasty', count: number, signature: dspy.Signature): dspy.Demo[] {
  const adapter = new dspy.ChatAdapter()
  const demos: dspy.Demo[] = []
  for (let index = 0; demos.length < count; index++) {
    const { program, turns } = documentAt(index, { seed: 77, kind: 'single', mix: 'habits' })
    const turn = turns.at(-1)!
    if (program !== 'ChainOfThought' || turn.style !== style) continue
    const { fields } = adapter.tryParse(signature, turn.text)
    if (!fields) continue
    const answer = String(fields['answer'])
    if (style === 'careful' && !isExact(turn.fact.answer, answer)) continue
    demos.push({ question: turn.question, reasoning: fields['reasoning'], answer })
  }
  return demos
}
