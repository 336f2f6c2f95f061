import { describe, expect, it } from 'vitest'
import type { TrainSequence } from './engine'
import { buildPacks, type Pack } from './prefix-tree'

const SEQUENCES: readonly TrainSequence[] = [
  { prompt: [1, 2, 3, 4], completion: [7, 8, 9] },
  { prompt: [1, 2, 5], completion: [7, 8] },
  { prompt: [1, 2, 3, 4], completion: [7, 8, 6] },
  { prompt: [1, 2, 3, 4], completion: [] },
  { prompt: [1, 2, 3, 4], completion: [9] },
  { prompt: [3], completion: [1, 1] },
]

/** The tokens a row sees, itself last: what attention's plan says, read back. */
function visible(pack: Pack, row: number): number[] {
  for (let s = 0; s < pack.segments.length; s += 4) {
    const [start, rows, contextStart, length] = pack.segments.subarray(s, s + 4)
    if (row < start! || row >= start! + rows!) continue
    const seen = pack.context.subarray(contextStart!, contextStart! + length! - rows! + (row - start!) + 1)
    return Array.from(seen, (slot) => pack.ids[slot]!)
  }
  throw new Error(`row ${row} is in no segment`)
}

describe('prefix tree', () => {
  it.each([1, 5, 8, 12, 1000])('at %i tokens a pack, every completion token sees exactly what came before it', (packTokens) => {
    const { packs, pairs } = buildPacks(SEQUENCES, packTokens)
    const all = SEQUENCES.flatMap(({ prompt, completion }) =>
      completion.map((target, i) => ({ target, before: [...prompt, ...completion.slice(0, i)] })),
    )
    expect(pairs).toBe(all.length)
    const met = new Set<number>()
    for (const pack of packs) {
      for (const [i, place] of pack.places.entries()) {
        expect(pack.targets[i]).toBe(all[place]!.target)
        expect(visible(pack, pack.rows[i]!)).toEqual(all[place]!.before)
        met.add(place)
      }
      for (let row = 0; row < pack.tokens; row++) expect(visible(pack, row).length).toBe(pack.positions[row]! + 1)
    }
    expect(met.size).toBe(all.length)
  })

  it('shared beginnings, of prompts and of completions, are one row each', () => {
    const { packs, tokens, tokensUnshared } = buildPacks(SEQUENCES, 1000)
    // 1 2 (3 4 (7 8) | 5 (7)) and 3 (1): a last completion token is no row.
    expect([packs.length, tokens, tokensUnshared]).toEqual([1, 2 + 4 + 2 + 2, 6 + 4 + 6 + 4 + 2])
    expect(packs[0]!.segments.length / 4).toBe(4)
  })

  it('packs keep to their budget, apart from a sequence that is longer alone', () => {
    for (const packTokens of [5, 7, 9])
      for (const pack of buildPacks(SEQUENCES, packTokens).packs) expect(pack.tokens).toBeLessThanOrEqual(Math.max(packTokens, 6))
  })

  it('sequences of one prompt stay together', () => {
    // In the order given, 7 tokens a pack would part the two that share four prompt tokens.
    const { packs } = buildPacks(SEQUENCES, 7)
    expect([...packs[0]!.places]).toEqual([0, 1, 2, 5, 6, 7, 8])
  })

  it('nothing to learn from gives no pack', () => {
    expect(buildPacks([], 10)).toEqual({ packs: [], tokens: 0, tokensUnshared: 0, pairs: 0 })
    expect(buildPacks([{ prompt: [1], completion: [] }], 10).packs).toEqual([])
  })
})
