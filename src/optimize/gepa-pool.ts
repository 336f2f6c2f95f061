// The candidates of a GEPA run with their scores on every validation example, their lineage, and what finding them cost.
// Follows gepa/core/state.py.

import type { Module, Prediction } from '../program'
import type { Front } from './gepa-pareto'
import { PythonSet } from './python-set'

/** What a candidate is: an instruction for each predictor. */
export type Texts = Readonly<Record<string, string>>

/** Scores and predictions, example by example. */
export interface BatchScores {
  readonly scores: readonly number[]
  readonly outputs: readonly Prediction[]
}

export interface PoolEntry<P extends Module = Module> {
  readonly texts: Texts
  readonly program: P
  /** Empty for the program that was given. */
  readonly parents: readonly number[]
  /** On the validation examples, in their order. */
  readonly scores: readonly number[]
  readonly average: number
  /** Metric calls made before it was scored on the validation set. */
  readonly discovery: number
}

export class GepaPool<P extends Module = Module> {
  readonly entries: PoolEntry<P>[] = []
  /** Leading candidates of each validation example. */
  readonly fronts: Front[] = []
  /** The highest score of each validation example. */
  readonly bestScores: number[] = []
  /** With `keepOutputs`: what the leading candidates answered, by validation example. */
  readonly bestOutputs: [candidate: number, output: Prediction][][] = []
  /** Runs of the program that were scored, for reflection and for validation; the budget is counted in these. */
  metricCalls = 0
  fullEvaluations = 0
  /** Which component the round robin takes next, by candidate. */
  readonly #nextComponent: number[] = []

  constructor(readonly keepOutputs = false) {}

  /** Files a candidate with its validation scores, and counts them. Answers its index. */
  add(candidate: { texts: Texts; program: P; parents: readonly number[] }, { scores, outputs }: BatchScores): number {
    const index = this.entries.length
    this.entries.push({
      ...candidate,
      scores,
      average: sum(scores) / scores.length,
      discovery: index === 0 ? 0 : this.metricCalls,
    })
    this.#nextComponent.push(Math.max(0, ...candidate.parents.map((parent) => this.#nextComponent[parent]!)))
    this.metricCalls += scores.length
    this.fullEvaluations++
    for (const [id, score] of scores.entries()) this.#updateFront(id, score, { index, output: outputs[id]! })
    return index
  }

  #updateFront(id: number, score: number, { index, output }: { index: number; output: Prediction }): void {
    const best = this.bestScores[id] ?? Number.NEGATIVE_INFINITY
    if (score < best) return
    if (score > best) {
      this.bestScores[id] = score
      this.fronts[id] = new PythonSet()
      this.bestOutputs[id] = []
    }
    this.fronts[id]!.add(index)
    if (this.keepOutputs) this.bestOutputs[id]!.push([index, output])
  }

  get averages(): number[] {
    return this.entries.map((entry) => entry.average)
  }

  /** The first of those with the highest average. */
  get bestIndex(): number {
    const averages = this.averages
    return averages.indexOf(Math.max(...averages))
  }

  /** The next component of a candidate in turn; a child goes on where its parents are. */
  nextComponent(candidate: number): string {
    const names = Object.keys(this.entries[0]!.texts)
    const turn = this.#nextComponent[candidate]!
    this.#nextComponent[candidate] = (turn + 1) % names.length
    return names[turn]!
  }
}

export function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}
