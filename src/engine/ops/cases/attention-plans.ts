// Who sees what, in the cases of attention.

import { buildPacks } from '../../prefix-tree'
import { intsOf, Random, type Values } from './case'

export interface Heads {
  readonly heads: number
  readonly kvHeads: number
  readonly headDim: number
}

export interface Plan {
  readonly name: string
  readonly tokens: number
  readonly slots: number
  readonly segments: readonly (readonly [rowStart: number, rowCount: number, contextStart: number, contextLength: number])[]
  readonly context: readonly number[]
}

/** One run of rows that sees itself. */
export function causal(tokens: number): Plan {
  const context = Array.from({ length: tokens }, (_, i) => i)
  return { name: `${tokens} causal rows`, tokens, slots: tokens, segments: [[0, tokens, 0, tokens]], context }
}

/** A pack as the trainer makes it. */
export function tree(): Plan {
  const [one, two] = [
    [5, 6, 7, 8, 9],
    [5, 6, 7, 3],
  ]
  const sequences = [
    { prompt: one!, completion: [1, 2, 3, 4] },
    { prompt: one!, completion: [1, 2, 9] },
    { prompt: one!, completion: [2, 2] },
    { prompt: two!, completion: [1, 1, 1, 1, 1, 1] },
    { prompt: two!, completion: [1, 1, 2, 1, 1] },
    { prompt: [8, 1], completion: [4, 4] },
  ]
  const pack = buildPacks(sequences, 1000).trees[0]!.packs[0]!
  const segments = Array.from({ length: pack.segments.length / 4 }, (_, s) => {
    const [rowStart, rowCount, contextStart, contextLength] = pack.segments.subarray(4 * s, 4 * s + 4)
    return [rowStart!, rowCount!, contextStart!, contextLength!] as const
  })
  return { name: 'prefix tree', tokens: pack.tokens, slots: pack.tokens, segments, context: [...pack.context] }
}

/** A run and five that branch off it: keys that many rows of several segments see. */
export function branches(): Plan {
  const [trunk, rows, count] = [70, 40, 5]
  const run = (from: number, length: number) => Array.from({ length }, (_, i) => from + i)
  const starts = Array.from({ length: count }, (_, i) => trunk + rows * i)
  const segments = starts.map((start, i) => [start, rows, trunk + (trunk + rows) * i, trunk + rows] as const)
  const tokens = trunk + rows * count
  const context = [...run(0, trunk), ...starts.flatMap((start) => [...run(0, trunk), ...run(start, rows)])]
  const name = `${trunk} rows and ${count} branches of ${rows}`
  return { name, tokens, slots: tokens, segments: [[0, trunk, 0, trunk], ...segments], context }
}

/** Many runs over a trunk that was computed before them, each with a branch of its own: keys seen by more segments than share a tile. */
export function trunk(): Plan {
  const [before, own, runs] = [70, 20, 18]
  const run = (from: number, length: number) => Array.from({ length }, (_, i) => from + i)
  const context: number[] = []
  const segments = Array.from({ length: 2 * runs }, (_, i) => {
    const start = before + own * (i >> 1) * 2
    const seen = [...run(0, before), ...run(start, own), ...(i % 2 ? run(start + own, own) : [])]
    context.push(...seen)
    return [own * i, own, context.length - seen.length, seen.length] as const
  })
  const tokens = 2 * own * runs
  return { name: `${runs} runs and branches over ${before} keys`, tokens, slots: before + tokens, segments, context }
}

/** Two prompts go on after prefixes that lie somewhere in the cache. */
export function continued(): Plan {
  const slots = [...new Random(3).distinct(22, 40)]
  const segments = [[0, 4, 0, 13] as const, [4, 2, 13, 9] as const]
  return { name: 'two runs over cached prefixes', tokens: 6, slots: 40, segments, context: slots }
}

/** One new row for each of five sequences of different length, one of them its first; or of fewer. */
export function decode(sequences = 5): Plan {
  const random = new Random(4)
  const lengths = [64, 1, 17, 130, 3].slice(0, sequences)
  const slots = [...random.distinct(215, 230)]
  return {
    name: `decode of ${sequences} rows`,
    ...singles(
      lengths.map((length) => slots.splice(0, length)),
      230,
    ),
  }
}

/** Two prompts' three sequences each, that begin alike; one of the last begins unlike the others, and two are the same. */
export function shared(): Plan {
  const slots = [...new Random(6).distinct(400, 420)]
  const take = (length: number) => slots.splice(0, length)
  const common = take(40)
  const prompts = [take(60), take(24)].map((own) => [...common, ...own])
  const contexts = prompts.flatMap((prompt) => [3, 30, 41].map((length) => [...prompt, ...take(length)]))
  return {
    name: 'decode of rows that share keys',
    ...singles([...contexts, [...take(5), ...contexts[0]!.slice(5)], contexts[3]!, contexts[3]!], 420),
  }
}

/** Rows that see more keys than a block has room for; two of them the same first ones. */
export function distant(): Plan {
  const slots = [...new Random(7).distinct(1300, 1310)]
  const common = slots.splice(0, 380)
  const contexts = [[...common, ...slots.splice(0, 9)], [...common, ...slots.splice(0, 500)], slots.splice(0, 50)]
  return { name: 'decode of rows far from their first keys', ...singles(contexts, 1310) }
}

/** More rows than any device has blocks for at a time: prompts' five sequences each, which begin alike, and a row that sees itself alone. */
export function crowd(rows = 301): Plan {
  const slots = [...new Random(9).distinct(rows * 12 + 200, rows * 12 + 210)]
  const take = (length: number) => slots.splice(0, length)
  const common = take(70)
  const contexts = Array.from({ length: (rows - 1) / 5 }, () => [...common, ...take(20)]).flatMap((prompt) =>
    [1, 7, 9, 4, 12].map((length) => [...prompt, ...take(length)]),
  )
  return { name: 'decode of a crowd', ...singles([...contexts, take(1)], rows * 12 + 210) }
}

/**
 * A crowd of all kinds, so many times over: rows that share a prompt and go on for a while, rows with more keys than a block has at once, rows that
 * share nothing, a run of two, and a segment without rows.
 */
export function gathering(times: number): Plan {
  const slots = [...new Random(11).distinct(times * 1100, times * 1100 + 10)]
  const take = (length: number) => slots.splice(0, length)
  const contexts: (readonly [rows: number, context: number[]])[] = []
  for (let i = 0; i < times; i++) {
    const prompt = take(75)
    for (const own of [1, 21, 22, 60, 9, 3, 38, 53]) contexts.push([1, [...prompt, ...take(own)]])
    contexts.push([0, take(5)])
    const long = take(331)
    for (const own of [70, 1, 64]) contexts.push([1, [...long, ...take(own)]])
    contexts.push([1, take(33)], [2, [...long, ...take(90)]], [1, [...prompt, ...take(20)]], [1, take(1)])
  }
  const plan = runs(contexts, times * 1100 + 10)
  return { name: `decode of ${plan.tokens} rows of all kinds`, ...plan }
}

/** One run of three such rows, which is no decode step; devices take it for one all the same. */
export function distantRun(): Plan {
  const context = [...new Random(8).distinct(810, 820)]
  return { name: 'a run far from its first keys', tokens: 3, slots: 820, segments: [[0, 3, 0, 810]], context }
}

/** A row that is the last of each context. */
function singles(contexts: readonly (readonly number[])[], slots: number): Omit<Plan, 'name'> {
  return runs(
    contexts.map((context) => [1, context] as const),
    slots,
  )
}

/** So many rows that are the last of each context. */
function runs(contexts: readonly (readonly [rows: number, context: readonly number[]])[], slots: number): Omit<Plan, 'name'> {
  let [tokens, start] = [0, 0]
  const segments = contexts.map(([rows, { length }]) => {
    const segment = [tokens, rows, start, length] as const
    tokens += rows
    start += length
    return segment
  })
  return { tokens, slots, segments, context: contexts.flatMap(([, own]) => own) }
}

/** The plan's arrays, with room to spare after the segments that count. */
export function planValues(plan: Plan): { segments: Values; context: Values } {
  const segments = [...plan.segments.flat(), 0, 1, 0, 1]
  return { segments: intsOf(segments, [plan.segments.length + 1, 4]), context: intsOf([...plan.context, 0, 0]) }
}
