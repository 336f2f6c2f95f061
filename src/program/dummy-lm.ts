// A language model for tests: it answers with given fields, in an adapter's own format.

import { LMError, OptionError } from '../errors'
import type { Message } from '../protocol'
import { BaseLM, type LMOptions, type LMResponse } from './base-lm'
import { ChatAdapter } from './chat-adapter'
import type { Field } from './field'
import type { Loose } from './infer-types'

/** Fields of an answer, or the very text, or an error to throw. */
export type DummyAnswer = Loose | string | Error

/**
 * Answers from a list in call order, or from a record by the first key that the last message contains, or from a function of the messages.
 * @example new DummyLM([{ answer: 'Paris' }, { answer: 'Rome' }])
 * @example new DummyLM({ 'capital of France': { answer: 'Paris' } })
 */
export class DummyLM extends BaseLM {
  readonly #answers:
    | readonly DummyAnswer[]
    | Readonly<Record<string, DummyAnswer>>
    | ((messages: readonly Message[]) => DummyAnswer)
  readonly #adapter: ChatAdapter
  #calls = 0
  #given = 0

  constructor(
    answers: readonly DummyAnswer[] | Readonly<Record<string, DummyAnswer>> | ((messages: readonly Message[]) => DummyAnswer),
    config: LMOptions & { readonly adapter?: ChatAdapter } = {},
  ) {
    const { adapter = new ChatAdapter(), ...options } = config
    super('dummy', options)
    this.#answers = answers
    this.#adapter = adapter
  }

  override copy(changes: { readonly model?: string } & LMOptions = {}): DummyLM {
    const { model: _, ...options } = changes
    return new DummyLM(this.#answers, { ...this.options, adapter: this.#adapter, ...options })
  }

  override dumpState(): Record<string, unknown> {
    return { model: this.model }
  }

  protected override async forward(messages: readonly Message[], options: LMOptions): Promise<LMResponse> {
    const id = `dummy-${++this.#calls}`
    const outputs = Array.from({ length: options.n ?? 1 }, (_, index) => ({
      text: this.#text(messages),
      completionId: `${id}#${index}`,
      finishReason: 'stop',
    }))
    return { id, model: this.model, outputs, usage: { promptTokens: 0, completionTokens: 0, totalTokens: 0 } }
  }

  #text(messages: readonly Message[]): string {
    const answer = this.#next(messages)
    if (answer instanceof Error) throw answer
    if (typeof answer === 'string') return answer
    const fields = Object.keys(answer).map(
      (name): Field => ({ name, role: 'output', type: { kind: 'str' }, desc: '', prefix: '' }),
    )
    return this.#adapter.formatFields(fields, (field) => answer[field.name])
  }

  #next(messages: readonly Message[]): DummyAnswer {
    const last = messages.at(-1)
    if (!last) throw new OptionError('DummyLM got no messages.')
    if (typeof this.#answers === 'function') return this.#answers(messages)
    if (Array.isArray(this.#answers)) {
      const answer = this.#answers[this.#given++] as DummyAnswer | undefined
      if (answer !== undefined) return answer
      throw new LMError(`DummyLM has no answer left: it was given ${this.#answers.length}, and this is call ${this.#given}.`)
    }
    const found = Object.entries(this.#answers as Record<string, DummyAnswer>).find(([key]) => last.content.includes(key))
    if (found) return found[1]
    throw new LMError(`DummyLM has no answer for the message ${JSON.stringify(last.content.slice(0, 200))}.`)
  }
}
