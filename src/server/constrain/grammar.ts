// Grammars over bytes, as a graph of nodes: a byte of a set, a choice, a call of a rule, the rule's end. Automaton.ts walks it.

import { ArborError } from '../../errors'

export type Node = ByteNode | ChoiceNode | CallNode | EndNode

interface NodeHead {
  /** Fewest bytes from here to the end of its rule; known once the grammar is finished. */
  least: number
}
export interface ByteNode extends NodeHead {
  readonly kind: 'byte'
  readonly bytes: ByteSet
  readonly to: Node
}
export interface ChoiceNode extends NodeHead {
  readonly kind: 'choice'
  /** Empty where nothing can go on: a dead end, which no path to the end takes. */
  to: Node[]
}
export interface CallNode extends NodeHead {
  readonly kind: 'call'
  readonly rule: Rule
  readonly to: Node
}
export interface EndNode extends NodeHead {
  readonly kind: 'end'
}

export interface Rule {
  readonly name: string
  start: Node
}

/** A part of a text: given what follows it, the node that it begins at. */
export type Fragment = (grammar: Grammar, next: Node) => Node

/** Limits what a schema may ask for: beyond, masks would take longer than the model. */
const MOST_NODES = 200_000

/** Which of the 256 bytes. */
export class ByteSet {
  private readonly words = new Uint32Array(8)

  constructor(ranges: readonly (readonly [number, number])[]) {
    for (const [low, high] of ranges) for (let byte = low; byte <= high; byte++) this.words[byte >> 5]! |= 1 << (byte & 31)
  }

  has(byte: number): boolean {
    return ((this.words[byte >> 5]! >>> (byte & 31)) & 1) === 1
  }
}

/** Makes nodes and rules, and knows when there are too many. */
export class Grammar {
  readonly end: EndNode = { kind: 'end', least: 0 }
  readonly #nodes: Node[] = [this.end]
  readonly #rules: Rule[] = []

  byte(bytes: ByteSet, to: Node): ByteNode {
    return this.#keep({ kind: 'byte', bytes, to, least: Number.POSITIVE_INFINITY })
  }

  choice(to: Node[]): ChoiceNode {
    return this.#keep({ kind: 'choice', to, least: Number.POSITIVE_INFINITY })
  }

  call(rule: Rule, to: Node): CallNode {
    return this.#keep({ kind: 'call', rule, to, least: Number.POSITIVE_INFINITY })
  }

  /** A rule without a text yet, so that it can call itself. */
  declare(name: string): Rule {
    const rule: Rule = { name, start: this.end }
    this.#rules.push(rule)
    return rule
  }

  rule(name: string, text: Fragment): Rule {
    const rule = this.declare(name)
    rule.start = text(this, this.end)
    return rule
  }

  /**
   * Computes every node's `least`.
   * @throws ArborError `endless_grammar` for a rule that can't come to an end, or that begins with itself
   */
  finish(root: Rule): void {
    for (let changed = true; changed; ) {
      changed = false
      for (const node of this.#nodes) {
        const least = leastOf(node) // of nodes made before it, mostly: texts are put together from their ends
        if (least < node.least) changed = true
        node.least = Math.min(least, node.least)
      }
    }
    if (root.start.least === Number.POSITIVE_INFINITY)
      throw new ArborError('No finite text can satisfy it.', { code: 'endless_grammar' })
    for (const rule of this.#rules) refuseSelfStart(rule)
  }

  #keep<Kind extends Node>(node: Kind): Kind {
    if (this.#nodes.push(node) > MOST_NODES)
      throw new ArborError(`It needs more than ${MOST_NODES} places. Lower its counts (minLength, maxItems, …) or its enums.`, {
        code: 'grammar_too_large',
      })
    return node
  }
}

function leastOf(node: Node): number {
  switch (node.kind) {
    case 'end':
      return 0
    case 'byte':
      return 1 + node.to.least
    case 'call':
      return node.rule.start.least + node.to.least
    case 'choice':
      return node.to.reduce((least, to) => Math.min(least, to.least), Number.POSITIVE_INFINITY)
  }
}

/** A rule that is called again before a byte is taken would be entered for ever. */
function refuseSelfStart(rule: Rule): void {
  const entered = new Set<Node>([rule.start])
  for (const node of entered) {
    if (node.kind === 'choice') for (const to of node.to) entered.add(to)
    if (node.kind !== 'call') continue
    if (node.rule === rule) throw new ArborError(`"${rule.name}" begins with itself.`, { code: 'endless_grammar' })
    entered.add(node.rule.start)
    if (node.rule.start.least === 0) entered.add(node.to)
  }
}

// ---------------------------------------------------------------- fragments

export const nothing: Fragment = (_, next) => next
/** Never matches. */
export const never: Fragment = (grammar) => grammar.choice([])

export function bytesOf(...ranges: (readonly [number, number])[]): Fragment {
  const set = new ByteSet(ranges)
  return (grammar, next) => grammar.byte(set, next)
}

/** One of these ASCII characters. */
export function anyOf(characters: string): Fragment {
  return bytesOf(...[...Buffer.from(characters)].map((byte) => [byte, byte] as const))
}

/** This text, in UTF-8. */
export function text(value: string): Fragment {
  return sequence(...[...Buffer.from(value)].map((byte) => bytesOf([byte, byte])))
}

/** One of many texts: what they begin with in common is written once. */
export function oneOfTexts(texts: readonly string[]): Fragment {
  const sorted = [...new Set(texts)].map((one) => Buffer.from(one)).sort(Buffer.compare)
  return (grammar, next) => beginnings(grammar, sorted, { depth: 0, next })
}

/** The texts agree up to `depth`. */
function beginnings(grammar: Grammar, texts: readonly Buffer[], { depth, next }: { depth: number; next: Node }): Node {
  const ways: Node[] = texts.some(({ length }) => length === depth) ? [next] : []
  for (let from = texts.findIndex(({ length }) => length > depth); from >= 0 && from < texts.length; ) {
    const byte = texts[from]![depth]!
    let to = from
    while (to < texts.length && texts[to]![depth] === byte) to++
    const rest = beginnings(grammar, texts.slice(from, to), { depth: depth + 1, next })
    ways.push(grammar.byte(new ByteSet([[byte, byte]]), rest))
    from = to
  }
  return ways.length === 1 ? ways[0]! : grammar.choice(ways)
}

export function sequence(...parts: readonly Fragment[]): Fragment {
  return (grammar, next) => parts.reduceRight((to, part) => part(grammar, to), next)
}

export function either(...parts: readonly Fragment[]): Fragment {
  if (parts.length === 1) return parts[0]!
  return (grammar, next) => grammar.choice(parts.map((part) => part(grammar, next)))
}

export function optional(part: Fragment): Fragment {
  return either(part, nothing)
}

/** From `least` to `most` times; a part that is long should be a call. */
export function repeated(part: Fragment, least: number, most = Number.POSITIVE_INFINITY): Fragment {
  return (grammar, next) => {
    let node = next
    if (most === Number.POSITIVE_INFINITY) {
      const loop = grammar.choice([])
      loop.to = [part(grammar, loop), next]
      node = loop
    } else for (let i = least; i < most; i++) node = grammar.choice([part(grammar, node), next])
    for (let i = 0; i < least; i++) node = part(grammar, node)
    return node
  }
}

export function call(rule: Rule): Fragment {
  return (grammar, next) => grammar.call(rule, next)
}
