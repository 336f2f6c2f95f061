// The pretraining documents. Each follows from its number alone: there is no corpus file, and a stopped run goes on at the next number.

import type { Message } from '../protocol'
import { Random } from './random'
import type { Mix } from './styles'
import { drawTurn, type Program, questionText, systemText, type Turn } from './turns'

export interface DocumentOptions {
  readonly seed: number
  /** One question, or one to three demonstrations before it. */
  readonly kind: 'single' | 'demos'
  readonly mix: Mix
}

export interface Document {
  /** system, user, assistant, …: every assistant message is trained on. */
  readonly messages: readonly Message[]
  readonly program: Program
  /** What each assistant message shows, in their order; the last is the answer proper. */
  readonly turns: readonly Turn[]
}

const CHAIN_OF_THOUGHT_SHARE = 0.85
const MAX_DEMOS = 3
/** How often all turns of a document share one style: the model learns to go on as the demonstrations begin. */
const SHARED_STYLE = 0.6

/** Document number `index` of a corpus without end. */
export function documentAt(index: number, { seed, kind, mix }: DocumentOptions): Document {
  const random = new Random('document', seed, kind, mix, index)
  const program: Program = random.chance(CHAIN_OF_THOUGHT_SHARE) ? 'ChainOfThought' : 'Predict'
  const demos = kind === 'demos' ? 1 + random.below(MAX_DEMOS) : 0
  const last = drawTurn(random, { program, mix, style: null, mayBreak: true })
  const style = random.chance(SHARED_STYLE) ? last.style : null
  const shown = Array.from({ length: demos }, () => drawTurn(random, { program, mix, style, mayBreak: false }))
  const turns = [...shown, last]
  const messages = turns.flatMap(({ question, text }, i) => [
    { role: 'user', content: questionText(program, question, i === demos) },
    { role: 'assistant', content: text },
  ])
  return { messages: [{ role: 'system', content: systemText(program) }, ...messages], program, turns }
}

/**
 * Texts to train a tokenizer on: the turns of `count` documents, and each system turn once for 200 documents (more would only
 * count the same words again). Role names come first, as in the chat template.
 */
export function trainingTexts(count: number, seed: number): string[] {
  const text = ({ role, content }: Message): string => `${role}\n${content}`
  const system = (['ChainOfThought', 'Predict'] as const).map((program) => text({ role: 'system', content: systemText(program) }))
  const copies = Array.from({ length: Math.ceil(count / 200) }, () => system).flat()
  const turns = Array.from({ length: count }, (_, index) => {
    const { messages } = documentAt(index, { seed, kind: 'single', mix: 'habits' })
    return messages.slice(1).map(text)
  })
  return [...copies, ...turns.flat()]
}
