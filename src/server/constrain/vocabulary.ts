// A tokenizer's tokens as bytes, in a tree of common beginnings: which tokens may come next is one walk through it.

import { addToken, emptyMask, type TokenMask } from '../../engine/sampling'
import type { State } from './automaton'

export interface Allowed {
  readonly mask: TokenMask
  readonly tokens: number
  /** The most that the fewest bytes to an end can be after one of these tokens. */
  readonly furthest: number
  /** Tokens that lead further from an end than the state was, each with the fewest bytes to one that are left after it. */
  readonly away: readonly { readonly token: number; readonly least: number }[]
}

/** Nodes of the tree in depth-first order; node 0 is the empty text. */
export class Vocabulary {
  readonly #bytes: Uint8Array
  readonly #depths: Uint16Array
  /** The next node that lies not below this one. */
  readonly #past: Int32Array
  /** The first of a node's tokens in `tokens`; the next node's is where they end. */
  readonly #firstToken: Int32Array
  readonly #tokens: Int32Array
  readonly #path: State[] = []

  /**
   * @param texts each token's bytes as characters 0 to 255; null for special tokens and those without bytes, which no text holds
   * @param size of the model's vocabulary, which may be larger
   */
  constructor(
    readonly texts: readonly (string | null)[],
    private readonly size = texts.length,
  ) {
    const order = [...texts.keys()]
      .filter((token) => texts[token])
      .sort((a, b) => (texts[a]! < texts[b]! ? -1 : texts[a]! > texts[b]! ? 1 : a - b))
    const most = order.reduce((sum, token) => sum + texts[token]!.length, 1)
    this.#bytes = new Uint8Array(most)
    this.#depths = new Uint16Array(most)
    this.#firstToken = new Int32Array(most + 1)
    this.#tokens = Int32Array.from(order)
    const nodes = this.#plant(order)
    this.#past = this.#measure(nodes)
  }

  /** Tokens that may follow in `state`; only those after which `keep` holds. */
  allowed(state: State, keep: (after: State) => boolean = () => true): Allowed {
    const mask = emptyMask(this.size)
    const path = this.#path
    path[0] = state
    const away: { token: number; least: number }[] = []
    let [tokens, furthest] = [0, 0]
    for (let node = 1; node < this.#past.length; ) {
      const depth = this.#depths[node]!
      const after = path[depth - 1]!.after(this.#bytes[node]!)
      if (after === null) {
        node = this.#past[node]!
        continue
      }
      path[depth] = after
      const [from, to] = [this.#firstToken[node]!, this.#firstToken[node + 1]!]
      if (from < to && keep(after)) {
        for (let i = from; i < to; i++) addToken(mask, this.#tokens[i]!)
        if (after.least > state.least) for (let i = from; i < to; i++) away.push({ token: this.#tokens[i]!, least: after.least })
        tokens += to - from
        furthest = Math.max(furthest, after.least)
      }
      node++
    }
    return { mask, tokens, furthest, away }
  }

  /** Lays the tree out; returns how many nodes it has. */
  #plant(order: readonly number[]): number {
    let nodes = 1
    let before = ''
    for (const [place, token] of order.entries()) {
      const text = this.texts[token]!
      let common = 0
      while (common < before.length && text[common] === before[common]) common++
      for (let depth = common; depth < text.length; depth++) {
        this.#bytes[nodes] = text.charCodeAt(depth)
        this.#depths[nodes] = depth + 1
        this.#firstToken[nodes] = place
        nodes++
      }
      this.#firstToken[nodes] = place + 1
      before = text
    }
    return nodes
  }

  #measure(nodes: number): Int32Array {
    const past = new Int32Array(nodes)
    const open: number[] = [] // by depth, the node that isn't past yet
    for (let node = 0; node < nodes; node++) {
      const depth = this.#depths[node]!
      for (let d = depth; d < open.length; d++) past[open[d]!] = node
      open.length = depth
      open[depth] = node
    }
    for (const node of open) past[node] = nodes
    return past
  }
}
