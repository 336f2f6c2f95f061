// What a completion under a grammar may say next: a mask over the vocabulary for each state, computed once, and an eye on how many tokens are left.

import { addToken, removeToken, type TokenMask } from '../../engine/sampling'
import { Automaton, type State } from './automaton'
import type { Rule } from './grammar'
import type { Allowed, Vocabulary } from './vocabulary'

/** Masks kept for one grammar, in bytes. */
const MOST_MASK_BYTES = 16 * 1024 ** 2

const MOST_PLACES = 100_000

/** A grammar over one vocabulary; shared by all completions that it constrains. */
export class Constraint {
  readonly start: State
  readonly #automaton: Automaton
  readonly #masks = new Map<State, Allowed>()
  /** Those that lead nearer to an end. */
  readonly #hurried = new Map<State, Allowed>()

  constructor(
    root: Rule,
    private readonly vocabulary: Vocabulary,
    /** Tokens that end a completion: they may come where the text may end. */
    private readonly stopTokenIds: readonly number[],
  ) {
    this.#automaton = new Automaton(root)
    this.start = this.#automaton.start
  }

  /** So many places were seen (of texts nested ever deeper, say) that it is time for a new one. */
  get worn(): boolean {
    return this.#automaton.size > MOST_PLACES
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
    return this.#remembered(this.#masks, state, () => this.vocabulary.allowed(state))
  }

  /** Of those, the ones after which a text can still end within `bytes` more: at least as many as are left when the next byte is one towards the end. */
  allowedWithin(state: State, bytes: number): Allowed {
    if (bytes < state.least)
      return this.#remembered(this.#hurried, state, () => this.vocabulary.allowed(state, ({ least }) => least < state.least))
    const usual = this.allowed(state)
    const far = usual.away.filter(({ least }) => least > bytes)
    const mask = usual.mask.slice()
    for (const { token } of far) removeToken(mask, token)
    return { mask, tokens: usual.tokens - far.length, furthest: bytes, away: [] }
  }

  #remembered(masks: Map<State, Allowed>, state: State, make: () => Allowed): Allowed {
    let known = masks.get(state)
    if (known) return known
    known = this.#ending(state, make())
    if (masks.size * known.mask.byteLength > MOST_MASK_BYTES) masks.clear()
    masks.set(state, known)
    return known
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
  /** The end of the tokens came so near that each further byte had to lead to the text's own end. */
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
    this.hurried ||= left < this.#state.least
    return near.mask
  }

  #take(token: number): void {
    let state: State | null = this.#state
    for (const character of this.constraint.textOf(token) ?? '') state = state?.after(character.charCodeAt(0)) ?? null
    if (state) this.#state = state // a token that ends the completion leaves it where it is
  }
}
