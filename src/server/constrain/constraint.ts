// What a completion under a grammar may say next: a mask over the vocabulary for each state, computed once, and an eye on how many tokens are left.

import { addToken, type TokenMask } from '../../engine/sampling'
import { Automaton, type State } from './automaton'
import type { Rule } from './grammar'
import type { Allowed, Vocabulary } from './vocabulary'

/** Masks kept for one grammar, in bytes. */
const MOST_MASK_BYTES = 64 * 1024 ** 2

/** A grammar over one vocabulary; shared by all completions that it constrains. */
export class Constraint {
  readonly start: State
  #masks = new Map<State, Allowed>()

  constructor(
    root: Rule,
    private readonly vocabulary: Vocabulary,
    /** Tokens that end a completion: they may come where the text may end. */
    private readonly stopTokenIds: readonly number[],
  ) {
    this.start = new Automaton(root).start
  }

  /** Masks that are remembered. */
  get size(): number {
    return this.#masks.size
  }

  /** The text of a token; null for one that has none. */
  textOf(token: number): string | null {
    return this.vocabulary.texts[token] ?? null
  }

  allowed(state: State): Allowed {
    let known = this.#masks.get(state)
    if (known) return known
    known = this.#ending(state, this.vocabulary.allowed(state))
    if (this.#masks.size * known.mask.byteLength > MOST_MASK_BYTES) this.#masks.clear()
    this.#masks.set(state, known)
    return known
  }

  /** Of those, the ones after which a text can still end within `bytes` more. */
  allowedWithin(state: State, bytes: number): Allowed {
    return this.#ending(
      state,
      this.vocabulary.allowed(state, ({ least }) => least <= bytes),
    )
  }

  #ending(state: State, allowed: Allowed): Allowed {
    if (!state.accepts) return allowed
    for (const token of this.stopTokenIds) addToken(allowed.mask, token)
    return { ...allowed, tokens: allowed.tokens + this.stopTokenIds.length }
  }
}

/** One completion on its way through a grammar. */
export class Course {
  #state: State
  #read = 0
  /** The end of the tokens came so near that the text had to be brought to its own end. */
  hurried = false

  constructor(
    private readonly constraint: Constraint,
    private readonly maxNewTokens: number,
  ) {
    this.#state = constraint.start
  }

  /** What may follow these tokens, all of the completion so far. Every byte is a token of most vocabularies, so bytes left to write stand for tokens. */
  next(tokens: readonly number[]): TokenMask {
    for (; this.#read < tokens.length; this.#read++) this.#take(tokens[this.#read]!)
    const usual = this.constraint.allowed(this.#state)
    const left = this.maxNewTokens - tokens.length - 2 // after this one and the token that ends the completion
    if (usual.furthest <= left || this.#state.least > left + 1) return usual.mask
    const near = this.constraint.allowedWithin(this.#state, left)
    if (near.tokens === 0) return usual.mask
    this.hurried ||= near.tokens < usual.tokens
    return near.mask
  }

  #take(token: number): void {
    let state: State | null = this.#state
    for (const character of this.constraint.textOf(token) ?? '') state = state?.after(character.charCodeAt(0)) ?? null
    if (state) this.#state = state // a token that ends the completion leaves it where it is
  }
}
