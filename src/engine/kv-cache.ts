// Which slot of the KV cache holds which token. Prompts form one radix tree per policy and version, a slot a token,
// so a prefix that several sequences share is computed and stored once. No device memory here: slots are row numbers.

import { ArborError } from '../errors'

/** A run of tokens that follow each other without a branch. A root is empty and stands for (policy, version). */
export class PrefixNode {
  readonly children = new Map<number, PrefixNode>() // by first token
  /** Sequences that hold this node or one below it. */
  references = 0
  lastUsed = 0
  /** Tokens from the root to this node's last. */
  readonly depth: number
  #path: Int32Array | null = null

  constructor(
    public parent: PrefixNode | null,
    public tokens: readonly number[],
    public slots: readonly number[], // as long as tokens
    depth = (parent?.depth ?? 0) + tokens.length,
  ) {
    this.depth = depth
  }

  /** The slots from the root to this node's last token: one list for all who ask, as long as anybody holds the node. */
  get path(): Int32Array {
    if (this.#path) return this.#path
    const path = new Int32Array(this.depth)
    for (let node: PrefixNode | null = this; node; node = node.parent) path.set(node.slots, node.depth - node.slots.length)
    return (this.#path = path)
  }

  forgetPath(): void {
    this.#path = null
  }
}

interface Root {
  readonly version: number
  readonly node: PrefixNode
}

/**
 * A fixed pool of slots. A sequence holds one node (its deepest), which protects the path up to the root; what nobody
 * holds stays cached until its slots are needed, least recently used leaves first.
 */
export class KvCache {
  readonly #free: Int32Array // a stack of slot numbers
  #freeCount = 0
  #opened = 0 // slots used or free to be used; the rest were never touched
  #treeSlots = 0 // in the tree, held or not
  #heldSlots = 0 // in the tree and held
  #evicted = 0
  /** Slots that sequences have set aside: whoever needs one more than they may have it. */
  readonly #reserves = new Set<number[]>()
  #reserved = 0
  #clock = 0
  readonly #roots = new Map<string | null, Root>()

  /** Beyond `roomy` slots, cached prefixes that nobody holds make way before slots are used that never were: memory untouched is memory free. */
  constructor(
    readonly capacity: number,
    roomy: number = capacity,
  ) {
    this.#free = new Int32Array(capacity)
    this.#open(Math.min(roomy, capacity))
  }

  /** Slots a caller could get now, evicting what nobody holds. */
  get available(): number {
    return this.#unclaimed + this.#reserved
  }

  /** Those of them that nobody has set aside. */
  get #unclaimed(): number {
    return this.capacity - this.#opened + this.#freeCount + this.#treeSlots - this.#heldSlots
  }

  /** Tokens in the tree, held or not. */
  get cachedTokens(): number {
    return this.#treeSlots
  }

  /** Slots taken back from cached prefixes since the start. */
  get evictedTokens(): number {
    return this.#evicted
  }

  /** Slots in use by sequences: prefixes they hold and their own tails. */
  get usedSlots(): number {
    return this.capacity - this.available
  }

  /** The root of a policy, held once more. Keys and values of another version are stale and dropped. */
  open(policy: string | null, version: number): PrefixNode {
    let root = this.#roots.get(policy)
    if (root && root.version !== version) this.forget(policy)
    root = this.#roots.get(policy)
    if (!root) this.#roots.set(policy, (root = { version, node: new PrefixNode(null, [], []) }))
    root.node.references++
    return root.node
  }

  /**
   * Moves a hold from `node`, where the first of the tokens lead, down along the others, as far as the tree knows them.
   * Returns the deepest node, now held instead of `node`.
   */
  descend(node: PrefixNode, tokens: readonly number[]): PrefixNode {
    const now = ++this.#clock
    while (node.depth < tokens.length) {
      let child = node.children.get(tokens[node.depth]!)
      if (!child) break
      const common = commonLength(child.tokens, tokens, node.depth)
      if (common < child.tokens.length) child = this.#split(child, common)
      if (child.references++ === 0) this.#heldSlots += child.slots.length
      child.lastUsed = now
      node = child
    }
    return node
  }

  /**
   * Adds the next `count` tokens below `node` (a held node from which `descend` went no further), with fresh slots.
   * The caller computes their keys and values in the very next batch. Returns the new node, held instead of `node`, or null when slots are short.
   */
  extend(node: PrefixNode, tokens: readonly number[], count: number): PrefixNode | null {
    const fresh = this.allocate(count)
    if (!fresh) return null
    const child = new PrefixNode(node, tokens.slice(node.depth, node.depth + count), fresh)
    child.references = 1
    child.lastUsed = ++this.#clock
    node.children.set(child.tokens[0]!, child)
    this.#treeSlots += fresh.length
    this.#heldSlots += fresh.length
    return child
  }

  /** `count` slots outside the tree, or null (and nothing evicted) when there aren't as many. */
  allocate(count: number): number[] | null {
    if (count > this.available) return null
    this.#makeFree(count)
    const slots = new Array<number>(count)
    for (let i = 0; i < count; i++) slots[i] = this.#free[--this.#freeCount]!
    return slots
  }

  /** Sets up to `count` slots aside in an empty list, as far as nobody else has a claim on them; the one to be used first is the last. */
  reserve(list: number[], count: number): void {
    const most = Math.min(count, this.#unclaimed)
    if (most <= 0) return
    this.#makeFree(most)
    this.#freeCount -= most
    for (let i = 0; i < most; i++) list.push(this.#free[this.#freeCount + i]!) // as they lay: the top of the stack goes first
    this.#reserves.add(list)
    this.#reserved += most
  }

  /** One slot outside the tree, out of those set aside while they last. The caller made sure that there is one. */
  next(reserve: number[]): number {
    const slot = reserve.pop()
    if (slot === undefined) {
      if (this.#freeCount === 0) this.#makeFree(1)
      return this.#free[--this.#freeCount]!
    }
    this.#reserved--
    if (reserve.length === 0) this.#reserves.delete(reserve)
    return slot
  }

  /** Gives back what was set aside. */
  unreserve(reserve: number[]): void {
    if (!this.#reserves.delete(reserve)) return
    this.#reserved -= reserve.length
    this.free(reserve)
    reserve.length = 0
  }

  /** Makes at least `count` slots free: cached prefixes make way first, then slots never used, then those set aside. */
  #makeFree(count: number): void {
    if (count > this.#freeCount) this.#evict(count)
    if (count > this.#freeCount) this.#open(Math.min(count - this.#freeCount, this.capacity - this.#opened))
    for (const reserve of this.#reserves) {
      if (count <= this.#freeCount) return
      this.unreserve(reserve)
    }
  }

  /** Gives back slots from `allocate` or `next`. */
  free(slots: readonly number[]): void {
    for (const slot of slots) this.#free[this.#freeCount++] = slot
  }

  /** Lets go of a held node. Its tokens stay cached. */
  release(node: PrefixNode): void {
    for (let at: PrefixNode | null = node; at; at = at.parent) {
      if (--at.references > 0) continue
      this.#heldSlots -= at.slots.length
      at.forgetPath()
    }
  }

  /** Drops all a policy has cached: its weights changed. No sequence of it may be running. */
  forget(policy: string | null): void {
    const root = this.#roots.get(policy)
    if (!root) return
    if (root.node.references > 0)
      throw new ArborError(`policy ${policy ?? '(base)'}: ${root.node.references} sequences still use its cached prefixes.`)
    this.#roots.delete(policy)
    const pending = [root.node]
    for (let node = pending.pop(); node; node = pending.pop()) {
      pending.push(...node.children.values())
      this.#treeSlots -= node.slots.length
      this.free(node.slots)
    }
  }

  /** Forgets every policy and the base. */
  clear(): void {
    for (const policy of [...this.#roots.keys()]) this.forget(policy)
  }

  /** Cuts a node in two; the upper half is the new one, so whoever holds `node` still holds all of it. */
  #split(node: PrefixNode, at: number): PrefixNode {
    const parent = node.parent!
    const upper = new PrefixNode(parent, node.tokens.slice(0, at), node.slots.slice(0, at), node.depth - node.tokens.length + at)
    upper.references = node.references
    upper.children.set(node.tokens[at]!, node)
    parent.children.set(upper.tokens[0]!, upper)
    node.parent = upper
    node.tokens = node.tokens.slice(at)
    node.slots = node.slots.slice(at)
    return upper
  }

  /** Makes `count` more slots free for use, the lowest on top. */
  #open(count: number): void {
    const first = this.#opened
    this.#opened += count
    for (let slot = this.#opened - 1; slot >= first; slot--) this.#free[this.#freeCount++] = slot
  }

  /**
   * Drops leaves that nobody holds, least recently used first, until `needed` slots are free or none is left. A parent left bare is a leaf then.
   */
  #evict(needed: number): void {
    while (this.#freeCount < needed && this.#treeSlots > this.#heldSlots) {
      const leaves = [...this.#leaves()].sort((a, b) => a.lastUsed - b.lastUsed)
      for (const leaf of leaves) {
        if (this.#freeCount >= needed) return
        leaf.parent!.children.delete(leaf.tokens[0]!)
        this.#treeSlots -= leaf.slots.length
        this.#evicted += leaf.slots.length
        this.free(leaf.slots)
      }
    }
  }

  *#leaves(): Generator<PrefixNode> {
    const pending = [...this.#roots.values()].map((root) => root.node)
    for (let node = pending.pop(); node; node = pending.pop()) {
      if (node.children.size > 0) pending.push(...node.children.values())
      else if (node.parent && node.references === 0) yield node
    }
  }
}

/** How many of `run` stand in `tokens` from `start` on; at least 1, as children are found by their first token. */
function commonLength(run: readonly number[], tokens: readonly number[], start: number): number {
  const end = Math.min(run.length, tokens.length - start)
  let length = 1
  while (length < end && run[length] === tokens[start + length]) length++
  return length
}
