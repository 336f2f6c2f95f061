// From the nodes of a token tree to a pack's arrays. Runs are copied whole, by slices of what is there already: a step's first calls come before V8 has
// compiled any loop.

import type { PackPairs, PackRows } from './later-pack'
import type { Node } from './token-tree'

/** A node whose tokens predict those of a sequence, each the next. */
export interface Predicting {
  readonly node: Node
  readonly tokens: Int32Array
  readonly place: number
}

/** The rows of one pack (or of the trunk, which comes first): those that predict nothing, then those that do. */
export function layOut(all: readonly Node[][], firstSlot: number): PackRows {
  const runs = [...all.filter(([first]) => !first!.live), ...all.filter(([first]) => first!.live)]
  const nodes = runs.flat()
  const tokens = nodes.reduce((sum, { start, end }) => sum + end - start, 0)
  const [ids, positions] = [new Int32Array(tokens), new Int32Array(tokens)]
  let row = 0
  let liveStart = tokens
  for (const node of nodes) {
    node.slot = firstSlot + row
    if (node.live) liveStart = Math.min(liveStart, row)
    ids.set(node.of.tokens.subarray(node.start, node.end), row)
    positions.set(counting(node.start, node.end), row)
    row += node.end - node.start
  }
  return { ids, positions, ...attentionOf(runs, firstSlot), liveStart }
}

/** For each predicted token, its row, itself, and its place among all. */
export function pairLists(pairs: readonly Predicting[], firstLive: number): PackPairs {
  const count = pairs.reduce((sum, { node }) => sum + node.end - node.start, 0)
  const [rows, targets, places] = [new Int32Array(count), new Int32Array(count), new Int32Array(count)]
  let at = 0
  for (const { node, tokens, place } of pairs) {
    const [{ start, end }, row] = [node, node.slot - firstLive]
    rows.set(counting(row, row + end - start), at)
    targets.set(tokens.subarray(start + 1, end + 1), at)
    places.set(counting(place, place + end - start), at)
    at += end - start
  }
  return { rows, targets, places }
}

/** A segment for each run; its context is the slots from the root down to its last node. */
function attentionOf(runs: readonly Node[][], firstSlot: number): Pick<PackRows, 'segments' | 'context'> {
  const segments = new Int32Array(4 * runs.length)
  const context = new Int32Array(runs.reduce((sum, run) => sum + run.at(-1)!.end, 0))
  let at = 0
  for (const [i, run] of runs.entries()) {
    const [first, last] = [run[0]!, run.at(-1)!]
    segments.set([first.slot - firstSlot, last.end - first.start, at, last.end], 4 * i)
    for (let node: Node | null = last; node; node = node.parent)
      context.set(counting(node.slot, node.slot + node.end - node.start), at + node.start)
    at += last.end
  }
  return { segments, context }
}

let numbers = new Int32Array(0)

/** The numbers from `first` to before `end`; not to be written to. */
export function counting(first: number, end: number): Int32Array {
  if (end > numbers.length) numbers = new Int32Array(2 * end).map((_, i) => i)
  return numbers.subarray(first, end)
}
