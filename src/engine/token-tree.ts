// The tree of tokens that buildPacks cuts into packs. A node is a run of tokens that nothing has parted so far: a step's sequences are tens of
// thousands of tokens, but part in few places. Runs are compared and copied whole: a GPU waits for the first pack, and a step's first calls come before
// V8 has compiled any loop.

import { LaterPack } from './later-pack'
import { layOut, type Predicting, pairLists } from './pack-layout'
import type { PackedTree } from './prefix-tree'

/** A sequence and where its completion tokens begin in the list of all. */
export class Placed {
  readonly promptLength: number
  /** Prompt and completion; all but the last are rows, what is computed. */
  readonly tokens: Int32Array
  private memory: Buffer | null = null

  constructor(
    prompt: Int32Array,
    completion: readonly number[],
    readonly place: number,
  ) {
    this.promptLength = prompt.length
    this.tokens = new Int32Array(prompt.length + completion.length)
    this.tokens.set(prompt)
    this.tokens.set(completion, prompt.length)
  }

  /** The same memory: few are compared. */
  get bytes(): Buffer {
    return (this.memory ??= Buffer.from(this.tokens.buffer))
  }
}

export function rowCount({ tokens }: Placed): number {
  return tokens.length - 1
}

/** How many rows sequences are, asked for no more closely than it matters. */
interface Rows {
  within(limit: number): boolean
}

/** Stands for a pack's number where a node belongs to the trunk. */
const TRUNK = -1

export interface Node {
  /** The sequence that brought it; its own are the tokens from `start` to `end`, which are its positions as well. */
  readonly of: Placed
  start: number
  readonly end: number
  parent: Node | null
  /** By first token, in the order they came. */
  readonly children: Map<number, Node>
  pack: number
  /** Its tokens predict completion tokens. */
  live: boolean
  /** Of its first token. */
  slot: number
}

/** A sequence in the tree: a node keeps its end when it is split, so this one stays the sequence's last. */
interface Inserted {
  readonly one: Placed
  readonly last: Node
}

export class TokenTree {
  private readonly roots = new Map<number, Node>()
  private readonly inserted: Inserted[] = []
  /** Tokens of each pack that no other pack needs. */
  private readonly sizes = [0]
  private trunkSize = 0

  constructor(
    private readonly packTokens: number,
    private readonly mostPacks = Number.POSITIVE_INFINITY,
  ) {}

  get empty(): boolean {
    return this.inserted.length === 0
  }

  get rows(): number {
    return this.trunkSize + this.sizes.reduce((sum, size) => sum + size, 0)
  }

  /**
   * Adds sequences of one prompt, so many `rows` in a tree of their own, to the last pack or, where that would become too large, to a new one;
   * false (and nothing added) when neither can be or there are as many packs as there may be.
   */
  add(group: readonly Placed[], rows: Rows): boolean {
    if (!this.empty) {
      const last = this.fits(group[0]!, rows)
      if (!last && this.sizes.length >= this.mostPacks) return false
      if (!last) this.sizes.push(0)
      if (!last && !this.fits(group[0]!, rows)) return false
    }
    let stem: Node | null = null
    for (const one of group) {
      const last = this.insert(one, stem)
      this.inserted.push({ one, last })
      stem ??= stemOf(last, one)
    }
    return true
  }

  /** Rows that the packs would compute besides if they had no trunk; a tree without one saves all there is to save. */
  get savedRows(): number {
    const packs = this.sizes.filter((size) => size > 0).length
    return this.trunkSize > 0 ? this.trunkSize * (packs - 1) : Number.POSITIVE_INFINITY
  }

  /** Nothing may be added any more. */
  layOut(): PackedTree {
    let runs: Map<number, Node[][]> | null = null
    let pairs: Map<number, Predicting[]> | null = null
    const later = (pack: number, tokens: number, firstSlot: number) =>
      new LaterPack(tokens, firstSlot, {
        layOut: () => layOut((runs ??= this.runsByPack()).get(pack)!, firstSlot),
        list: ({ liveStart }) => pairLists((pairs ??= this.pairsByPack()).get(pack) ?? [], firstSlot + liveStart),
      })
    const size = this.trunkSize
    const trunk = size > 0 ? later(TRUNK, size, 0) : null
    trunk?.layOut()
    return { trunk, packs: this.sizes.flatMap((own, pack) => (own > 0 ? [later(pack, own, size)] : [])) }
  }

  private runsByPack(): Map<number, Node[][]> {
    const runs = new Map<number, Node[][]>()
    for (const run of this.runs()) {
      const { pack } = run[0]!
      const own = runs.get(pack)
      if (own) own.push(run)
      else runs.set(pack, [run])
    }
    return runs
  }

  /** Whether trunk and largest pack keep to their budget with this sequence, and others of its prompt, in the last pack. */
  private fits(one: Placed, rows: Rows): boolean {
    const { tokens } = one
    const sizes = [...this.sizes]
    let trunk = this.trunkSize
    let known = 0
    for (let node = this.roots.get(tokens[0]!); node; ) {
      const end = agreement(node, one)
      known = end
      if (this.isForeign(node.pack)) {
        sizes[node.pack]! -= end - node.start
        trunk += end - node.start
      }
      node = end === node.end && end < rowCount(one) ? node.children.get(tokens[end]!) : undefined
    }
    const last = sizes.pop()! - known
    return trunk + Math.max(0, ...sizes) <= this.packTokens && rows.within(this.packTokens - trunk - last)
  }

  /** Of another pack: it becomes the trunk's when the last pack needs it too. */
  private isForeign(pack: number): boolean {
    return pack !== TRUNK && pack !== this.sizes.length - 1
  }

  /** The node that ends with the sequence's last row. `stem`: the one that ends where its tokens begin to predict, where another of its prompt was. */
  private insert(one: Placed, stem: Node | null): Node {
    const live = one.promptLength - 1 // the prompt's last token predicts the first of the completion
    const rows = rowCount(one)
    let parent = stem
    for (let at = stem?.end ?? 0; at < rows; ) {
      const known: Node | undefined = (parent?.children ?? this.roots).get(one.tokens[at]!)
      const reach = known ? agreement(known, one) : rows
      const end = at < live && live < reach ? live : reach
      const node: Node = known ? this.upTo(known, end) : this.grow(parent, one, [at, end])
      if (at >= live) node.live = true
      this.claim(node)
      parent = node
      at = end
    }
    return parent!
  }

  private grow(parent: Node | null, of: Placed, [start, end]: readonly [number, number]): Node {
    const pack = this.sizes.length - 1
    const node: Node = { of, start, end, parent, children: new Map(), pack, live: false, slot: -1 }
    this.place(node)
    this.sizes[pack]! += end - start
    return node
  }

  /** Takes the place of a sibling with the same first token. */
  private place(node: Node): void {
    ;(node.parent?.children ?? this.roots).set(node.of.tokens[node.start]!, node)
  }

  /** The node's beginning up to `end`, parted from its rest where there is one. */
  private upTo(node: Node, end: number): Node {
    if (end === node.end) return node
    const { of, start, parent, pack, live } = node
    const upper: Node = { of, start, end, parent, children: new Map(), pack, live, slot: -1 }
    this.place(upper)
    node.start = end
    node.parent = upper
    this.place(node)
    return upper
  }

  private claim(node: Node): void {
    if (!this.isForeign(node.pack)) return
    this.sizes[node.pack]! -= node.end - node.start
    this.trunkSize += node.end - node.start
    node.pack = TRUNK
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

  /** The parts of sequences that predict, node by node, in the order of the sequences. */
  private pairsByPack(): Map<number, Predicting[]> {
    const pairs = new Map<number, Predicting[]>()
    for (const { one, last } of this.inserted) {
      const { promptLength, tokens, place } = one
      const path: Node[] = []
      for (let node: Node | null = last; node && node.end >= promptLength; node = node.parent) path.push(node)
      for (const node of path.reverse()) {
        const own = pairs.get(node.pack)
        const part = { node, tokens, place: place + node.start - (promptLength - 1) }
        if (own) own.push(part)
        else pairs.set(node.pack, [part])
      }
    }
    return pairs
  }
}

/** The node above that ends before the first that predicts; null for a prompt of one token. */
function stemOf(last: Node, { promptLength }: Placed): Node | null {
  let node: Node | null = last
  while (node && node.end >= promptLength) node = node.parent
  return node
}

/** Position up to which a node and a sequence's rows agree, given that they do at its start. */
function agreement({ of, start, end }: Node, one: Placed): number {
  const most = Math.min(end, rowCount(one))
  if (of.bytes.compare(one.bytes, 4 * start, 4 * most, 4 * start, 4 * most) === 0) return most
  let at = start + 1
  while (at < most && of.tokens[at] === one.tokens[at]) at++
  return at
}

/** The one child that is of the run's kind; null where there is none or a choice. */
function onlyHeir(children: readonly Node[], { pack, live }: Node): Node | null {
  const heirs = children.filter((child) => child.pack === pack && child.live === live)
  return heirs.length === 1 ? heirs[0]! : null
}
