// Sequences that begin alike are computed once: they form a tree of tokens, cut into packs that are computed one after the other. What
// several packs share is the tree's trunk, which stays in memory beside each of them. A segment is an unbranched run of rows; attention
// lets it see its ancestors. Gradients sum at the joints, so the result is the plain batch's.

import type { TrainSequence } from './engine'
import { Placed, rowCount, TokenTree } from './token-tree'

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
 * without a completion are left out. A trunk that saves fewer rows than `leastSaved` is no trunk: each pack computes it for itself.
 */
export function buildPacks(sequences: readonly TrainSequence[], packTokens: number, leastSaved = 0): PackedSequences {
  const starts = completionStarts(sequences)
  const groups = byPrompt(sequences, starts)
  const parts = groups.flatMap((group): Part[] => {
    const rows = new GroupRows(group)
    return rows.within(packTokens) ? [{ group, rows }] : group.map((one) => ({ group: [one], rows: new GroupRows([one]) }))
  })
  const shared = plant(parts, () => new TokenTree(packTokens))
  const trees = shared.flatMap(({ tree, parts: own }) => {
    if (tree.savedRows >= leastSaved) return [tree.layOut()]
    return plant(own, () => new TokenTree(packTokens, 1)).map((alone) => alone.tree.layOut())
  })
  const tokens = trees.flatMap(allPacks).reduce((sum, pack) => sum + pack.tokens, 0)
  const tokensUnshared = groups.flat().reduce((sum, one) => sum + rowCount(one), 0)
  return { trees, tokens, tokensUnshared, pairs: starts[sequences.length]! }
}

/** Sequences that stay together, and how many rows they are in a tree of their own. */
interface Part {
  readonly group: readonly Placed[]
  readonly rows: GroupRows
}

/** Puts parts into a tree for as long as it takes them, then into the next. */
function plant(parts: readonly Part[], open: () => TokenTree): { tree: TokenTree; parts: Part[] }[] {
  const planted: { tree: TokenTree; parts: Part[] }[] = []
  for (const part of parts) {
    const last = planted.at(-1)
    if (last?.tree.add(part.group, part.rows)) last.parts.push(part)
    else {
      const tree = open()
      tree.add(part.group, part.rows)
      planted.push({ tree, parts: [part] })
    }
  }
  return planted
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

/** The sequences that have a completion, those of one prompt together, else in the order given. */
function byPrompt(sequences: readonly TrainSequence[], starts: readonly number[]): Placed[][] {
  const groups: { readonly prompt: readonly number[]; readonly tokens: Int32Array; readonly own: Placed[] }[] = []
  const byHash = new Map<number, typeof groups>()
  let last: (typeof groups)[number] | undefined
  for (let i = 0; i < sequences.length; i++) {
    const { prompt, completion } = sequences[i]!
    if (completion.length === 0) continue
    if (last?.prompt !== prompt) {
      const hash = hashOf(prompt)
      const alike = byHash.get(hash) ?? []
      last = alike.find((group) => isEqual(group.prompt, prompt))
      if (!last) {
        last = { prompt, tokens: new Int32Array(prompt), own: [] }
        groups.push(last)
        byHash.set(hash, [...alike, last])
      }
    }
    last.own.push(new Placed(last.tokens, completion, starts[i]!))
  }
  return groups.map(({ own }) => own)
}

function hashOf(tokens: readonly number[]): number {
  let hash = tokens.length
  for (let i = 0; i < tokens.length; i++) hash = Math.imul(hash ^ tokens[i]!, 0x01000193) ^ (hash >>> 15)
  return hash
}

function isEqual(a: readonly number[], b: readonly number[]): boolean {
  if (a === b) return true
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}

/** Rows of sequences of one prompt in a tree of their own, counted where their number without one doesn't decide already. */
class GroupRows {
  private readonly most: number
  private exact: number | null = null

  constructor(private readonly group: readonly Placed[]) {
    const shared = group[0]!.promptLength
    this.most = group.reduce((sum, one) => sum + rowCount(one) - shared, shared)
  }

  /** Whether they are no more than `limit`. */
  within(limit: number): boolean {
    return this.most <= limit || this.count() <= limit
  }

  private count(): number {
    if (this.group.length === 1) return this.most
    if (this.exact !== null) return this.exact
    const alone = new TokenTree(Number.POSITIVE_INFINITY)
    alone.add(this.group, this)
    return (this.exact = alone.rows)
  }
}
