// GEPA's Pareto frontier: for each validation example the candidates that do best on it. A candidate that is nowhere needed is dropped, and the
// next parent is drawn by how many examples a candidate leads on. Follows gepa/gepa_utils.py; walks sets in CPython's order, for equal draws.

import type { PythonRandom } from '../program'
import { PythonSet } from './python-set'

/** The leading candidates of one validation example. */
export type Front = PythonSet

/** Fronts without dominated candidates: those in whose every front another one stands. The worst average goes first. */
export function removeDominated(originals: readonly Front[], averages: readonly number[]): Front[] {
  const fronts = originals.map((front) => new PythonSet(front)) // a copied set may have another order
  const seen = new Set(fronts.flatMap((front) => [...front]))
  const byScore = [...seen].sort((a, b) => averages[a]! - averages[b]!)
  const kept = new Set(byScore)
  for (let dropped = true; dropped; ) {
    const loser = byScore.find((candidate) => kept.has(candidate) && isDominated(candidate, fronts, kept))
    dropped = loser !== undefined
    if (dropped) kept.delete(loser!)
  }
  return fronts.map((front) => new PythonSet([...front].filter((candidate) => kept.has(candidate))))
}

function isDominated(candidate: number, fronts: readonly Front[], kept: ReadonlySet<number>): boolean {
  return fronts
    .filter((front) => front.has(candidate))
    .every((front) => [...front].some((other) => other !== candidate && kept.has(other)))
}

/** Candidates on the frontier, once each. */
export function frontierCandidates(fronts: readonly Front[], averages: readonly number[]): number[] {
  return [...new PythonSet(removeDominated(fronts, averages).flatMap((front) => [...front]))]
}

/** A candidate of the frontier, with a chance proportional to the number of examples it leads on. */
export function drawFromFrontier(fronts: readonly Front[], averages: readonly number[], random: PythonRandom): number {
  const leads = new Map<number, number>()
  for (const front of removeDominated(fronts, averages))
    for (const candidate of front) leads.set(candidate, (leads.get(candidate) ?? 0) + 1)
  return random.choice([...leads].flatMap(([candidate, count]) => Array<number>(count).fill(candidate)))
}
