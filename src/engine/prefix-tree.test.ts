import { describe, expect, it } from 'vitest'
import type { TrainSequence } from './engine'
import { allPacks, buildPacks, type Pack, type PackedTree } from './prefix-tree'
import { uniforms } from './random'

const SEQUENCES: readonly TrainSequence[] = [
  { prompt: [1, 2, 3, 4], completion: [7, 8, 9] },
  { prompt: [1, 2, 5], completion: [7, 8] },
  { prompt: [1, 2, 3, 4], completion: [7, 8, 6] },
  { prompt: [1, 2, 3, 4], completion: [] },
  { prompt: [1, 2, 3, 4], completion: [9] },
  { prompt: [3], completion: [1, 1] },
]

/** The tokens a row sees, itself last: what attention's plan says, read back. */
function visible({ trunk }: PackedTree, pack: Pack, row: number): number[] {
  for (let s = 0; s < pack.segments.length; s += 4) {
    const [start, rows, contextStart, length] = pack.segments.subarray(s, s + 4)
    if (row < start! || row >= start! + rows!) continue
    const seen = pack.context.subarray(contextStart!, contextStart! + length! - rows! + (row - start!) + 1)
    return Array.from(
      seen,
      (slot) => (slot < pack.firstSlot ? trunk! : pack).ids[slot < pack.firstSlot ? slot : slot - pack.firstSlot]!,
    )
  }
  throw new Error(`row ${row} is in no segment`)
}

/** Every completion token is predicted once, by a row that sees what came before it; no row is live for nothing. */
function checkPacks(sequences: readonly TrainSequence[], packTokens: number): void {
  const { trees, pairs } = buildPacks(sequences, packTokens)
  const all = sequences.flatMap(({ prompt, completion }) =>
    completion.map((target, i) => ({ target, before: [...prompt, ...completion.slice(0, i)] })),
  )
  expect(pairs).toBe(all.length)
  const met = new Set<number>()
  for (const tree of trees)
    for (const pack of allPacks(tree)) {
      for (const [i, place] of pack.places.entries()) {
        expect(pack.targets[i]).toBe(all[place]!.target)
        expect(visible(tree, pack, pack.liveStart + pack.rows[i]!)).toEqual(all[place]!.before)
        met.add(place)
      }
      for (let row = 0; row < pack.tokens; row++) expect(visible(tree, pack, row).length).toBe(pack.positions[row]! + 1)
      expect(new Set(pack.rows).size).toBe(pack.tokens - pack.liveStart) // each row from liveStart on predicts something
    }
  expect(met.size).toBe(all.length)
}

describe('prefix tree', () => {
  it.each([1, 5, 8, 12, 1000])('at %i tokens, every completion token sees exactly what came before it', (packTokens) => {
    checkPacks(SEQUENCES, packTokens)
  })

  it('holds for any sequences: short ones over three tokens part and meet in all ways', () => {
    const random = uniforms(1, 0)
    const draw = (most: number) => Math.floor(random() * most)
    const tokens = (length: number) => Array.from({ length }, () => draw(3))
    for (let round = 0; round < 40; round++) {
      const sequences = Array.from({ length: 1 + draw(20) }, () => ({ prompt: tokens(1 + draw(6)), completion: tokens(draw(6)) }))
      for (const packTokens of [1, 3, 7, 15, 1000]) checkPacks(sequences, packTokens)
    }
  })

  it('shared beginnings, of prompts and of completions, are one row each', () => {
    const { trees, tokens, tokensUnshared } = buildPacks(SEQUENCES, 1000)
    const [{ trunk, packs }] = trees as [PackedTree]
    // 1 2 (3 4 (7 8) | 5 (7)) and 3 (1): a last completion token is no row.
    expect([trees.length, packs.length, trunk, tokens, tokensUnshared]).toEqual([1, 1, null, 2 + 4 + 2 + 2, 6 + 4 + 6 + 4 + 2])
    // 1 2 3: nothing is predicted there; then 4 7 8, 5 7 and 3 1.
    expect(packs[0]!.segments.length / 4).toBe(1 + 3)
    expect(packs[0]!.liveStart).toBe(3)
  })

  it('what two packs need is computed once, in their trunk', () => {
    const { trees, tokens } = buildPacks(SEQUENCES, 7)
    const [{ trunk, packs }] = trees as [PackedTree]
    expect([...trunk!.ids]).toEqual([1, 2])
    expect(packs.map(({ tokens, firstSlot }) => [tokens, firstSlot])).toEqual([
      [4, 2],
      [4, 2],
    ])
    expect([trees.length, tokens]).toEqual([1, 10])
    expect([trunk!.liveStart, trunk!.rows.length]).toEqual([2, 0])
  })

  it('a trunk that saves too little is computed by each pack for itself', () => {
    const [shared, alone] = [2, 3].map((least) => buildPacks(SEQUENCES, 7, least))
    expect(shared!.trees.map(({ trunk }) => trunk?.tokens)).toEqual([2])
    expect(alone!.trees.map(({ trunk, packs }) => [trunk, packs.length])).toEqual([
      [null, 1],
      [null, 1],
    ])
    expect([alone!.tokens, alone!.tokensUnshared, alone!.pairs]).toEqual([12, shared!.tokensUnshared, shared!.pairs])
    expect(alone!.trees.flatMap(({ packs }) => packs.flatMap(({ places }) => [...places]))).toEqual(
      shared!.trees.flatMap(({ packs }) => packs.flatMap(({ places }) => [...places])),
    )
  })

  it('packs keep to their budget beside the trunk, apart from a sequence that is longer alone', () => {
    for (const packTokens of [5, 7, 9])
      for (const { trunk, packs } of buildPacks(SEQUENCES, packTokens).trees)
        for (const pack of packs) expect((trunk?.tokens ?? 0) + pack.tokens).toBeLessThanOrEqual(Math.max(packTokens, 6))
  })

  it('sequences of one prompt stay together', () => {
    // In the order given, 7 tokens a pack would part the two that share four prompt tokens.
    const [{ trunk, packs }] = buildPacks(SEQUENCES, 7).trees as [PackedTree]
    expect(trunk!.tokens).toBe(2)
    expect([...packs[0]!.places]).toEqual([0, 1, 2, 5, 6, 7, 8])
  })

  it('nothing to learn from gives no tree', () => {
    expect(buildPacks([], 10)).toEqual({ trees: [], tokens: 0, tokensUnshared: 0, pairs: 0 })
    expect(buildPacks([{ prompt: [1], completion: [] }], 10).trees).toEqual([])
  })
})
