import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { TPESampler } from './tpe-sampler'

interface Recorded {
  readonly made_by: string
  readonly cases: readonly {
    readonly seed: number
    readonly space: Record<string, number>
    /** Every so many trials one is told twice, as MIPROv2 does after a full evaluation; 0: never. */
    readonly extra: number
    readonly suggestions: readonly (readonly number[])[]
  }[]
}

const recorded = JSON.parse(readFileSync(join(__dirname, '../../test/golden/optuna/tpe.json'), 'utf8')) as Recorded

/** The score of the recording. */
function score(choices: Readonly<Record<string, number>>): number {
  const entries = Object.entries(choices)
  return entries.reduce((sum, [name, value], i) => sum + ((value * 7 + i * 3 + name.length) % 5) * 10, 0) / entries.length
}

describe('TPESampler', () => {
  it.for(recorded.cases)('suggests what Optuna suggests: seed $seed, $space', ({ seed, space, extra, suggestions }) => {
    const sampler = new TPESampler(seed)
    const first = Object.fromEntries(Object.keys(space).map((name) => [name, 0]))
    sampler.tell(first, score(first))
    const own = suggestions.map((_, i) => {
      const choices = sampler.suggest(space)
      // Optuna numbers a running trial when it starts, so it stands before one that is added meanwhile.
      sampler.tell(choices, score(choices))
      if (extra > 0 && (i + 1) % extra === 0) sampler.tell(choices, score(choices) + 1)
      return Object.values(choices)
    })
    expect(own).toEqual(suggestions)
  })
})
