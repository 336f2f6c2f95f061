// A step's sequences divided among engines: those of one prompt stay together, so that it is computed once, and the engines have about equally
// many tokens. The same sequences are always divided alike.

import type { TrainSequence } from './engine'

/** Sequences of one prompt, by their places in the list. */
interface Group {
  readonly places: readonly number[]
  /** Rows that are computed: the prompt once, each completion without its last token. */
  readonly rows: number
}

/** A prompt that two engines compute should make the largest part smaller by more than this. */
const WORTH_DIVIDING = 0.98

/**
 * The places of the sequences that each of `count` engines computes, in the order given; those without a completion are nobody's. Where there are fewer
 * prompts than engines, or one is most of the work, its sequences are divided too, as far as that makes the largest part smaller.
 */
export function planParts(sequences: readonly TrainSequence[], count: number): number[][] {
  let groups = byPrompt(sequences)
  let parts = assign(groups, count)
  for (;;) {
    const group = dividable(parts)
    // Into as many pieces as do best, the fewest of those: each computes the prompt anew.
    const wide = group ? Math.min(count, group.places.length) : 0
    let best = parts
    let divided = groups
    for (let pieces = 2; pieces <= wide; pieces++) {
      const finer = groups.flatMap((one) => (one === group ? divide(group, pieces, sequences) : [one]))
      const next = assign(finer, count)
      if (largest(next) < largest(best)) [best, divided] = [next, finer]
    }
    if (largest(best) >= WORTH_DIVIDING * largest(parts)) break
    groups = divided
    parts = best
  }
  return parts.map((part) => part.flatMap(({ places }) => places).sort((a, b) => a - b))
}

function byPrompt(sequences: readonly TrainSequence[]): Group[] {
  const prompts = new Map<string, number[]>()
  for (const [place, { prompt, completion }] of sequences.entries()) {
    if (completion.length === 0) continue
    const key = prompt.join()
    const places = prompts.get(key)
    if (places) places.push(place)
    else prompts.set(key, [place])
  }
  return [...prompts.values()].map((places) => groupOf(places, sequences))
}

function groupOf(places: readonly number[], sequences: readonly TrainSequence[]): Group {
  const prompt = sequences[places[0]!]!.prompt.length
  return { places, rows: places.reduce((sum, place) => sum + sequences[place]!.completion.length - 1, prompt) }
}

/** The largest first, each to the engine that has least; of equals the first. */
function assign(groups: readonly Group[], count: number): Group[][] {
  const parts: Group[][] = Array.from({ length: count }, () => [])
  const rows = new Array<number>(count).fill(0)
  for (const group of [...groups].sort((a, b) => b.rows - a.rows || a.places[0]! - b.places[0]!)) {
    const least = rows.indexOf(Math.min(...rows))
    parts[least]!.push(group)
    rows[least]! += group.rows
  }
  return parts
}

/** The largest group of the largest part that is more than one sequence. */
function dividable(parts: readonly (readonly Group[])[]): Group | null {
  const most = largest(parts)
  const part = parts.find((one) => rowsOf(one) === most) ?? []
  return part.filter(({ places }) => places.length > 1).sort((a, b) => b.rows - a.rows)[0] ?? null
}

function divide({ places }: Group, pieces: number, sequences: readonly TrainSequence[]): Group[] {
  const cut = (piece: number) => Math.round((piece * places.length) / pieces)
  return Array.from({ length: pieces }, (_, piece) => groupOf(places.slice(cut(piece), cut(piece + 1)), sequences))
}

function rowsOf(part: readonly Group[]): number {
  return part.reduce((sum, { rows }) => sum + rows, 0)
}

function largest(parts: readonly (readonly Group[])[]): number {
  return Math.max(...parts.map(rowsOf))
}
