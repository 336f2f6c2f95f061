// Sequences that begin alike are computed once: a pack is a tree of tokens, laid out as rows in depth-first order. A segment is an
// unbranched run of it; attention lets it see its ancestors. Gradients sum at the joints, so the result is the plain batch's.

import type { TrainSequence } from './engine'

/** One pack as plain arrays; row numbers double as slots. Nothing is shared between packs. */
export interface Pack {
  readonly tokens: number
  readonly ids: Int32Array // [tokens]
  readonly positions: Int32Array // [tokens]
  /** As AttentionPlan: rowStart, rowCount, contextStart, contextLength. */
  readonly segments: Int32Array // [segments * 4]
  readonly context: Int32Array
  /** For each completion token, sequence by sequence: the row that predicts it, and itself. Rows may repeat. */
  readonly rows: Int32Array // [pairs]
  readonly targets: Int32Array // [pairs]
  /** Where each pair's value belongs among all completion tokens in the order the sequences were given. */
  readonly places: Int32Array // [pairs]
}

export interface PackedSequences {
  readonly packs: readonly Pack[]
  /** Rows computed, and what they would be if every sequence were alone. */
  readonly tokens: number
  readonly tokensUnshared: number
  /** Completion tokens of all sequences. */
  readonly pairs: number
}

/**
 * Builds packs of at most `packTokens` rows; a sequence that is longer gets a pack of its own. Sequences of one prompt stay
 * together where they fit. A completion's last token predicts nothing, so it is no row. Sequences without a completion are left out.
 */
export function buildPacks(sequences: readonly TrainSequence[], packTokens: number): PackedSequences {
  const starts = completionStarts(sequences)
  const packs: Pack[] = []
  let tree = new PackTree()
  let tokensUnshared = 0
  for (const i of byPrompt(sequences)) {
    const sequence = sequences[i]!
    tokensUnshared += sequence.prompt.length + sequence.completion.length - 1
    if (tree.size > 0 && tree.size + tree.newTokens(sequence) > packTokens) {
      packs.push(tree.layOut())
      tree = new PackTree()
    }
    tree.add(sequence, starts[i]!)
  }
  if (tree.size > 0) packs.push(tree.layOut())
  const tokens = packs.reduce((sum, pack) => sum + pack.tokens, 0)
  return { packs, tokens, tokensUnshared, pairs: starts[sequences.length]! }
}

/** Where each sequence's completion tokens begin in the list of all, and the list's length at the end. */
export function completionStarts(sequences: readonly TrainSequence[]): number[] {
  const starts = [0]
  for (const { completion } of sequences) starts.push(starts.at(-1)! + completion.length)
  return starts
}

/** Indices of the sequences that have a completion, those of one prompt next to each other, else in the order given. */
function byPrompt(sequences: readonly TrainSequence[]): number[] {
  const groups = new Map<string, number[]>()
  for (const [i, { prompt, completion }] of sequences.entries()) {
    if (completion.length === 0) continue
    const key = prompt.join()
    const group = groups.get(key)
    if (group) group.push(i)
    else groups.set(key, [i])
  }
  return [...groups.values()].flat()
}

interface Node {
  readonly token: number
  readonly parent: Node | null
  readonly children: Map<number, Node>
  readonly depth: number // = position
  row: number
}

/** A pair before its row is known. */
interface Pair {
  readonly node: Node
  readonly target: number
  readonly place: number
}

class PackTree {
  size = 0
  private readonly roots = new Map<number, Node>()
  private readonly pairs: Pair[] = []

  /** Rows this sequence would add. */
  newTokens({ prompt, completion }: TrainSequence): number {
    const length = prompt.length + completion.length - 1
    let children: Map<number, Node> | undefined = this.roots
    for (let i = 0; i < length; i++) {
      children = children.get(i < prompt.length ? prompt[i]! : completion[i - prompt.length]!)?.children
      if (!children) return length - i
    }
    return 0
  }

  add({ prompt, completion }: TrainSequence, place: number): void {
    let node: Node | null = null
    for (const token of prompt) node = this.child(node, token)
    for (const [i, token] of completion.entries()) {
      this.pairs.push({ node: node!, target: token, place: place + i })
      if (i < completion.length - 1) node = this.child(node, token)
    }
  }

  layOut(): Pack {
    const ids = new Int32Array(this.size)
    const positions = new Int32Array(this.size)
    const segments: number[] = []
    const context: number[] = []
    let row = 0
    /** Segments still to come, each with the rows above it; a stack, so that rows come in depth-first order. */
    const waiting = [...this.roots.values()].reverse().map((node) => ({ node, above: [] as readonly number[] }))
    for (let next = waiting.pop(); next; next = waiting.pop()) {
      const rowStart = row
      let node = next.node
      for (;;) {
        node.row = row
        ids[row] = node.token
        positions[row++] = node.depth
        if (node.children.size !== 1) break
        node = node.children.values().next().value!
      }
      const seen = [...next.above, ...Array.from({ length: row - rowStart }, (_, i) => rowStart + i)]
      segments.push(rowStart, row - rowStart, context.length, seen.length)
      for (const slot of seen) context.push(slot)
      for (const child of [...node.children.values()].reverse()) waiting.push({ node: child, above: seen })
    }
    return {
      tokens: this.size,
      ids,
      positions,
      segments: Int32Array.from(segments),
      context: Int32Array.from(context),
      rows: Int32Array.from(this.pairs, ({ node }) => node.row),
      targets: Int32Array.from(this.pairs, ({ target }) => target),
      places: Int32Array.from(this.pairs, ({ place }) => place),
    }
  }

  private child(parent: Node | null, token: number): Node {
    const siblings = parent?.children ?? this.roots
    let node = siblings.get(token)
    if (!node) {
      node = { token, parent, children: new Map(), depth: parent ? parent.depth + 1 : 0, row: -1 }
      siblings.set(token, node)
      this.size++
    }
    return node
  }
}
