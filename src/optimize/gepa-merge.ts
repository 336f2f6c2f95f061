// GEPA's merge: of two candidates with a common ancestor each predictor's instruction comes from the one that changed it.
// Follows gepa/proposer/merge.py, but for two things: predictors are walked in their own order (Python's depends on its string hashes), and
// ancestors that all score 0 are drawn evenly (Python fails).

import type { PythonRandom } from '../program'
import { frontierCandidates } from './gepa-pareto'
import type { GepaPool, Texts } from './gepa-pool'
import { PythonSet } from './python-set'

const ATTEMPTS = 10
/** Validation examples on which a merged candidate is tried first. */
const TRIAL_SIZE = 5

export interface MergeOptions {
  /** Merged candidates that may be kept. */
  readonly maxInvocations: number
  /** Validation examples that both parents must have been scored on. */
  readonly overlapFloor: number
  readonly random: PythonRandom
}

export interface Merge {
  readonly texts: Texts
  readonly parents: readonly [number, number]
  /** Validation examples to try it on. */
  readonly ids: readonly number[]
}

interface Family {
  readonly one: number
  readonly two: number
  readonly ancestor: number
}

export class Merger {
  /** Merges to come: each accepted mutation allows one. */
  due = 0
  #kept = 0
  readonly #families: Family[] = []
  readonly #made = new Set<string>()

  constructor(
    readonly pool: GepaPool,
    readonly options: MergeOptions,
  ) {}

  /** A mutation was accepted. */
  allowOne(): void {
    if (this.#kept < this.options.maxInvocations) this.due++
  }

  /** The merge was accepted. */
  keep(): void {
    this.due--
    this.#kept++
  }

  /** A merge of two candidates on the frontier; null when no two can be merged. */
  propose(): Merge | null {
    const { pool } = this
    const candidates = frontierCandidates(pool.fronts, pool.averages)
    if (candidates.length < 2 || pool.entries.length < 3) return null
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const family = this.#drawFamily(candidates)
      if (!family) continue
      const { one, two } = family
      const { texts, sources } = this.#combine(family)
      const description = JSON.stringify([one, two, sources])
      if (this.#made.has(description) || pool.bestScores.length < this.options.overlapFloor) continue
      this.#made.add(description)
      this.#families.push(family)
      return { texts, parents: [one, two], ids: this.#trialIds(one, two) }
    }
    return null
  }

  /** Two candidates, neither the other's ancestor, with an ancestor that neither falls behind and from which one of them changed something. */
  #drawFamily(candidates: readonly number[]): Family | null {
    const { random } = this.options
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const [one, two] = random.sample(candidates, 2).sort((a, b) => a - b) as [number, number]
      const [ofOne, ofTwo] = [this.#ancestors(one), this.#ancestors(two)]
      if (ofOne.has(two) || ofTwo.has(one)) continue
      const common = [...new PythonSet([...ofOne]).and(new PythonSet([...ofTwo]))].filter((ancestor) =>
        this.#isUsable({ one, two, ancestor }),
      )
      if (common.length === 0) continue
      const weights = common.map((ancestor) => this.pool.entries[ancestor]!.average)
      const even = weights.every((weight) => weight === 0)
      return { one, two, ancestor: random.choices(common, even ? {} : { weights })[0]! }
    }
    return null
  }

  #ancestors(candidate: number, found = new PythonSet()): PythonSet {
    for (const parent of this.pool.entries[candidate]!.parents) if (!found.has(parent)) this.#ancestors(parent, found.add(parent))
    return found
  }

  #isUsable({ one, two, ancestor }: Family): boolean {
    const { entries } = this.pool
    if (this.#families.some((family) => family.one === one && family.two === two && family.ancestor === ancestor)) return false
    if (entries[ancestor]!.average > Math.min(entries[one]!.average, entries[two]!.average)) return false
    const [first, second, origin] = [entries[one]!.texts, entries[two]!.texts, entries[ancestor]!.texts]
    return Object.keys(origin).some(
      (name) => first[name] !== second[name] && (origin[name] === first[name] || origin[name] === second[name]),
    )
  }

  /** The merged instructions, and from which candidate each came. */
  #combine({ one, two, ancestor }: Family): { texts: Texts; sources: number[] } {
    const { entries } = this.pool
    const [first, second] = [entries[one]!, entries[two]!]
    const origin = entries[ancestor]!.texts
    const sourceOf = (name: string): number => {
      const [changedByOne, changedByTwo] = [first.texts[name] !== origin[name], second.texts[name] !== origin[name]]
      if (first.texts[name] === second.texts[name] && !(changedByOne && changedByTwo)) return one
      if (!changedByOne) return two
      if (!changedByTwo) return one
      if (first.average !== second.average) return first.average > second.average ? one : two
      return this.options.random.choice([one, two])
    }
    const names = Object.keys(origin)
    const sources = names.map(sourceOf)
    return { sources, texts: Object.fromEntries(names.map((name, i) => [name, entries[sources[i]!]!.texts[name]!])) }
  }

  /** Examples where the first is better, where the second is, where they are equal: two of each, filled up to five. */
  #trialIds(one: number, two: number): number[] {
    const { random } = this.options
    const [first, second] = [this.pool.entries[one]!.scores, this.pool.entries[two]!.scores]
    const all = first.map((_, id) => id)
    const perGroup = Math.ceil(TRIAL_SIZE / 3)
    const chosen: number[] = []
    for (const side of [1, -1, 0]) {
      const group = all.filter((id) => Math.sign(first[id]! - second[id]!) === side)
      const take = Math.min(group.length, perGroup, TRIAL_SIZE - chosen.length)
      if (take > 0) chosen.push(...random.sample(group, take))
    }
    const missing = TRIAL_SIZE - chosen.length
    const unused = all.filter((id) => !chosen.includes(id))
    if (missing > 0)
      chosen.push(...(unused.length >= missing ? random.sample(unused, missing) : random.choices(all, { k: missing })))
    return chosen
  }
}
