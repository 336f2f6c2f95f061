// History: a conversation so far, as an input of a signature. The adapters show its turns as messages before the request.

import { OptionError } from '../errors'
import { fieldsOf } from './example'

/** One exchange: the fields of the signature, as they were given and answered. */
export type Turn = Readonly<Record<string, unknown>>

/**
 * Unchangeable: every turn makes a new one.
 * @example
 * let history = new dspy.History()
 * const reply = await chat.call({ question, history })
 * history = history.with({ question, ...reply.toDict() })
 */
export class History {
  /** Oldest first. */
  readonly messages: readonly Turn[]

  /** @throws OptionError when the messages are no list of records */
  constructor({ messages = [] }: { readonly messages?: readonly object[] } = {}) {
    if (!Array.isArray(messages) || messages.some((turn) => typeof turn !== 'object' || turn === null)) {
      throw new OptionError('A History takes `messages`: a list of records like { question: "…", answer: "…" }.')
    }
    this.messages = Object.freeze(messages.map((turn) => ({ ...fieldsOf(turn) })))
  }

  /** The conversation and one turn more. */
  with(turn: object): History {
    return new History({ messages: [...this.messages, turn] })
  }

  get length(): number {
    return this.messages.length
  }
}
