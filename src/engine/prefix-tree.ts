// Sequences that begin alike are computed once: they form a tree of tokens, cut into packs that are computed one after the other. What
// several packs share is the tree's trunk, which stays in memory beside each of them. A segment is an unbranched run of rows; attention
// lets it see its ancestors. Gradients sum at the joints, so the result is the plain batch's.

import type { TrainSequence } from './engine'

/** Rows that are computed together, as plain arrays. */
export interface Pack {
  readonly tokens: number
  readonly ids: Int32Array // [tokens]
  readonly positions: Int32Array // [tokens]
  /** The trunk's rows take the first slots, a pack's rows those behind: firstSlot + row. */
  readonly firstSlot: number
  /** As AttentionPlan: rowStart, rowCount, contextStart, contextLength. */
  readonly segments: Int32Array // [segments * 4]
  readonly context: Int32Array
  /** Rows before this one predict nothing: they only serve others as keys and values. */
  readonly liveStart: number
  /** For each completion token: the row that predicts it, counted from `liveStart`, and itself. Rows may repeat. */
  readonly rows: Int32Array // [pairs]
  readonly targets: Int32Array // [pairs]
  /** Where each pair's value belongs among all completion tokens in the order the sequences were given. */
  readonly places: Int32Array // [pairs]
}

export interface PackedTree {
  /** What more than one pack needs; null when nothing is. */
  readonly trunk: Pack | null
  readonly packs: readonly Pack[]
}

export interface PackedSequences {
  /** Nothing is shared between trees. */
  readonly trees: readonly PackedTree[]
  /** Rows computed, and what they would be if every sequence were alone. */
  readonly tokens: number
  readonly tokensUnshared: number
  /** Completion tokens of all sequences. */
  readonly pairs: number
}

/**
 * Builds trees whose trunk and any one pack have at most `packTokens` rows together; a sequence that is longer gets a tree of its own.
 * Sequences of one prompt stay in one pack where they fit. A completion's last token predicts nothing, so it is no row. Sequences
 * without a completion are left out.
 */
export function buildPacks(sequences: readonly TrainSequence[], packTokens: number): PackedSequences {
  const starts = completionStarts(sequences)
  const trees: PackedTree[] = []
  let tree = new Tree(packTokens)
  const add = (group: readonly Placed[]) => {
    if (tree.add(group)) return
    trees.push(tree.layOut())
    tree = new Tree(packTokens)
    tree.add(group)
  }
  const groups = byPrompt(sequences, starts)
  for (const group of groups)
    if (rowsTogether(group) <= packTokens) add(group)
    else for (const one of group) add([one])
  if (!tree.empty) trees.push(tree.layOut())
  const tokens = trees.flatMap(allPacks).reduce((sum, pack) => sum + pack.tokens, 0)
  const tokensUnshared = groups.flat().reduce((sum, { prompt, completion }) => sum + prompt.length + completion.length - 1, 0)
  return { trees, tokens, tokensUnshared, pairs: starts[sequences.length]! }
}

/** The trunk, when there is one, and the packs. */
export function allPacks({ trunk, packs }: PackedTree): readonly Pack[] {
  return trunk ? [trunk, ...packs] : packs
}

/** Where each sequence's completion tokens begin in the list of all, and the list's length at the end. */
export function completionStarts(sequences: readonly TrainSequence[]): number[] {
  const starts = [0]
  for (const { completion } of sequences) starts.push(starts.at(-1)! + completion.length)
  return starts
}

/** A sequence and where its completion tokens begin in the list of all. */
interface Placed extends TrainSequence {
  readonly place: number
}

/** The sequences that have a completion, those of one prompt together, else in the order given. */
function byPrompt(sequences: readonly TrainSequence[], starts: readonly number[]): Placed[][] {
  const groups = new Map<string, Placed[]>()
  for (const [i, { prompt, completion }] of sequences.entries()) {
    if (completion.length === 0) continue
    const key = prompt.join()
    const group = groups.get(key)
    const placed = { prompt, completion, place: starts[i]! }
    if (group) group.push(placed)
    else groups.set(key, [placed])
  }
  return [...groups.values()]
}

/** Rows of a group in a tree of its own. */
function rowsTogether(group: readonly Placed[]): number {
  const alone = new Tree(Number.POSITIVE_INFINITY)
  alone.add(group)
  return alone.rows
}

/** Stands for a pack's number where a node belongs to the trunk. */
const TRUNK = -1

interface Node {
  readonly token: number
  readonly parent: Node | null
  readonly children: Map<number, Node>
  readonly depth: number // = position
  pack: number
  /** It predicts a completion token. */
  live: boolean
  slot: number
}

/** A pair before its row is known. */
interface Pair {
  readonly node: Node
  readonly target: number
  readonly place: number
}

class Tree {
  private readonly roots = new Map<number, Node>()
  private readonly pairs: Pair[] = []
  /** Nodes of each pack that no other pack needs. */
  private readonly sizes = [0]
  private trunkSize = 0

  constructor(private readonly packTokens: number) {}

  get empty(): boolean {
    return this.pairs.length === 0
  }

  get rows(): number {
    return this.trunkSize + this.sizes.reduce((sum, size) => sum + size, 0)
  }

  /**
   * Adds sequences of one prompt to the last pack or, where that would become too large, to a new one; false (and nothing added) when
   * neither can be.
   */
  add(group: readonly Placed[]): boolean {
    if (!this.empty) {
      const rows = rowsTogether(group)
      if (!this.fits(group[0]!, rows)) this.sizes.push(0)
      if (!this.fits(group[0]!, rows)) return false
    }
    for (const one of group) this.insert(one)
    return true
  }

  layOut(): PackedTree {
    const runs = this.runs()
    const trunk = this.trunkSize > 0 ? this.layOutPack(TRUNK, runs) : null
    const packs = this.sizes.flatMap((size, pack) => (size > 0 ? [this.layOutPack(pack, runs)] : []))
    return { trunk, packs }
  }

  /** Whether trunk and largest pack keep to their budget with this sequence, and others of its prompt, in the last pack. */
  private fits(sequence: TrainSequence, rows: number): boolean {
    const sizes = [...this.sizes]
    let trunk = this.trunkSize
    const known = this.known(sequence)
    for (const { pack } of known)
      if (this.isForeign(pack)) {
        sizes[pack]!--
        trunk++
      }
    sizes[sizes.length - 1]! += rows - known.length
    return trunk + Math.max(...sizes) <= this.packTokens
  }

  /** A node of another pack, which becomes the trunk's when the last pack needs it too. */
  private isForeign(pack: number): boolean {
    return pack !== TRUNK && pack !== this.sizes.length - 1
  }

  /** The nodes of a sequence that are there already. */
  private known({ prompt, completion }: TrainSequence): Node[] {
    const nodes: Node[] = []
    let children: Map<number, Node> | undefined = this.roots
    for (let i = 0; i < prompt.length + completion.length - 1; i++) {
      const node: Node | undefined = children.get(i < prompt.length ? prompt[i]! : completion[i - prompt.length]!)
      if (!node) break
      nodes.push(node)
      children = node.children
    }
    return nodes
  }

  private insert({ prompt, completion, place }: Placed): void {
    let node: Node | null = null
    for (const token of prompt) node = this.child(node, token)
    for (const [i, token] of completion.entries()) {
      node!.live = true
      this.pairs.push({ node: node!, target: token, place: place + i })
      if (i < completion.length - 1) node = this.child(node, token)
    }
  }

  private child(parent: Node | null, token: number): Node {
    const siblings = parent?.children ?? this.roots
    const last = this.sizes.length - 1
    let node = siblings.get(token)
    if (!node) {
      const depth = parent ? parent.depth + 1 : 0
      node = { token, parent, children: new Map(), depth, pack: last, live: false, slot: -1 }
      siblings.set(token, node)
      this.sizes[last]!++
    } else if (this.isForeign(node.pack)) {
      this.sizes[node.pack]!--
      this.trunkSize++
      node.pack = TRUNK
    }
    return node
  }

  /** All nodes as unbranched runs, each within one pack and wholly live or not; an ancestor's run comes first. */
  private runs(): Node[][] {
    const runs: Node[][] = []
    const waiting = [...this.roots.values()].reverse()
    for (let node = waiting.pop(); node; node = waiting.pop()) {
      const run = [node]
      for (let end: Node | null = node; end; ) {
        const children: Node[] = [...end.children.values()].reverse()
        end = onlyHeir(children, node)
        if (end) run.push(end)
        for (const child of children) if (child !== end) waiting.push(child)
      }
      runs.push(run)
    }
    return runs
  }

  /** The rows of one pack (or of the trunk, which comes first): those that predict nothing, then those that do. */
  private layOutPack(pack: number, allRuns: readonly Node[][]): Pack {
    const own = allRuns.filter(([first]) => first!.pack === pack)
    const runs = [...own.filter(([first]) => !first!.live), ...own.filter(([first]) => first!.live)]
    const firstSlot = pack === TRUNK ? 0 : this.trunkSize
    const nodes = runs.flat()
    for (const [row, node] of nodes.entries()) node.slot = firstSlot + row
    const liveStart = nodes.filter(({ live }) => !live).length
    const pairs = this.pairs.filter(({ node }) => node.pack === pack)
    return {
      tokens: nodes.length,
      ids: Int32Array.from(nodes, ({ token }) => token),
      positions: Int32Array.from(nodes, ({ depth }) => depth),
      firstSlot,
      ...attentionOf(runs, firstSlot),
      liveStart,
      rows: Int32Array.from(pairs, ({ node }) => node.slot - firstSlot - liveStart),
      targets: Int32Array.from(pairs, ({ target }) => target),
      places: Int32Array.from(pairs, ({ place }) => place),
    }
  }
}

/** The one child that is of the run's kind; null where there is none or a choice. */
function onlyHeir(children: readonly Node[], { pack, live }: Node): Node | null {
  const heirs = children.filter((child) => child.pack === pack && child.live === live)
  return heirs.length === 1 ? heirs[0]! : null
}

/** A segment for each run; its context is the slots from the root down to its last node. */
function attentionOf(runs: readonly Node[][], firstSlot: number): Pick<Pack, 'segments' | 'context'> {
  const segments: number[] = []
  const context: number[] = []
  for (const run of runs) {
    const last = run.at(-1)!
    segments.push(run[0]!.slot - firstSlot, run.length, context.length, last.depth + 1)
    const slots: number[] = []
    for (let node: Node | null = last; node; node = node.parent) slots.push(node.slot)
    for (const slot of slots.reverse()) context.push(slot)
  }
  return { segments: Int32Array.from(segments), context: Int32Array.from(context) }
}
