// Reads a text byte by byte along a grammar. A state is the set of all places the text may be at, each with the calls it is in; states are
// made when they are first met and remembered, so a byte that was taken once from a state is a table look-up ever after.

import { ArborError } from '../../errors'
import type { ByteNode, Node, Rule } from './grammar'

/** A node, and the calls to come back to after its rule's end. Equal places are one object. */
class Place {
  private readonly inner = new Map<Node, Place>()
  constructor(
    readonly node: Node | null,
    readonly outer: Place | null,
    readonly id: number,
    /** Fewest bytes to the end of the whole text. */
    readonly least: number,
  ) {}

  /** `node`, from where the way goes on here once its rule has ended. */
  enter(node: Node, nextId: () => number): Place {
    let place = this.inner.get(node)
    if (!place) this.inner.set(node, (place = new Place(node, this, nextId(), node.least + this.least)))
    return place
  }
}

export interface State {
  /** The text may end here. */
  readonly accepts: boolean
  /** Fewest bytes to an end. */
  readonly least: number
  /** The state after a byte; null: no text of the grammar goes on so. */
  after(byte: number): State | null
}

/** States remembered at once; beyond, those that nobody holds are forgotten. */
const MOST_STATES = 5_000
/** Places a text may be at at once; more, and a mask would take seconds. */
const MOST_WAITING = 2_000

export class Automaton {
  readonly start: State
  #places = 0
  #states = new Map<string, KnownState>()
  readonly #nextId = () => this.#places++

  constructor(root: Rule) {
    const outside = new Place(null, null, this.#nextId(), 0)
    this.start = this.#state(this.#expand([[root.start, outside]]))
  }

  /** Places made so far, for ever remembered. */
  get size(): number {
    return this.#places
  }

  /** The state of these places. */
  #state(places: Expanded): KnownState {
    const key = `${places.accepts ? 'end ' : ''}${places.waiting.map(({ id }) => id).join(' ')}`
    let state = this.#states.get(key)
    if (state) return state
    if (this.#states.size >= MOST_STATES) this.#states = new Map()
    const step = (from: readonly Place[], byte: number) => this.#step(from, byte)
    this.#states.set(key, (state = new KnownState(places, step)))
    return state
  }

  #step(places: readonly Place[], byte: number): KnownState | null {
    const taken = places.filter(({ node }) => (node as ByteNode).bytes.has(byte))
    if (taken.length === 0) return null
    const next = this.#expand(taken.map(({ node, outer }) => [(node as ByteNode).to, outer!]))
    return next.accepts || next.waiting.length > 0 ? this.#state(next) : null
  }

  /** Goes through choices, calls and ends until every way waits for a byte. */
  #expand(from: (readonly [Node, Place])[]): Expanded {
    const seen = new Set<Place>()
    const waiting: Place[] = []
    let accepts = false
    for (const todo = [...from]; todo.length > 0; ) {
      const [node, outer] = todo.pop()!
      if (node.least === Number.POSITIVE_INFINITY) continue // a dead end
      const place = outer.enter(node, this.#nextId)
      if (seen.has(place)) continue
      seen.add(place)
      if (node.kind === 'byte') waiting.push(place)
      else if (node.kind === 'choice') for (const to of node.to) todo.push([to, outer])
      // The last thing a rule does is called in its place, so that loops don't pile up places.
      else if (node.kind === 'call')
        todo.push([node.rule.start, node.to.kind === 'end' ? outer : outer.enter(node.to, this.#nextId)])
      else if (outer.node === null) accepts = true
      else todo.push([outer.node, outer.outer!])
    }
    if (waiting.length > MOST_WAITING)
      throw new ArborError(
        `The schema leaves more than ${MOST_WAITING} ways open at once. Give its alternatives something to tell them apart by.`,
        { code: 'grammar_too_large' },
      )
    waiting.sort((a, b) => a.id - b.id)
    return { waiting, accepts }
  }
}

interface Expanded {
  readonly waiting: readonly Place[]
  readonly accepts: boolean
}

class KnownState implements State {
  readonly accepts: boolean
  readonly least: number
  readonly #after: (KnownState | null | undefined)[] = new Array(256)

  constructor(
    private readonly places: Expanded,
    private readonly step: (places: readonly Place[], byte: number) => KnownState | null,
  ) {
    this.accepts = places.accepts
    this.least = places.accepts ? 0 : Math.min(...places.waiting.map(({ least }) => least))
  }

  after(byte: number): KnownState | null {
    const known = this.#after[byte]
    return known !== undefined ? known : (this.#after[byte] = this.step(this.places.waiting, byte))
  }
}
