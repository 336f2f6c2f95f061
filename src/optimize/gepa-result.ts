// What a GEPA run leaves beside the best program.

import type { Module, Prediction } from '../program'
import type { Optimized } from './candidates'
import type { GepaPool } from './gepa-pool'

/** All that a GEPA run found. Candidates are named by their index; 0 is the program as it was given. */
export interface GepaResult<P extends Module = Module> {
  readonly candidates: readonly P[]
  /** A mutation has one parent, a merge two, the program as given `[null]`. */
  readonly parents: readonly (readonly (number | null)[])[]
  /** Mean score on the validation examples. */
  readonly valAggregateScores: readonly number[]
  /** Scores by validation example. */
  readonly valSubscores: readonly (readonly number[])[]
  readonly perValInstanceBestCandidates: readonly (readonly number[])[]
  readonly highestScoreAchievedPerValTask: readonly number[]
  /** Metric calls made before each candidate was scored. */
  readonly discoveryEvalCounts: readonly number[]
  /** With `trackBestOutputs`: what the leading candidates answered, by validation example. */
  readonly bestOutputsValset: readonly (readonly [candidate: number, output: Prediction][])[] | null
  readonly totalMetricCalls: number
  readonly numFullValEvals: number
  readonly seed: number
  readonly bestIdx: number
  readonly bestCandidate: P
}

export type GepaOptimized<P extends Module> = Optimized<P> & { readonly detailedResults: GepaResult<P> }

export function detailsOf<P extends Module>(pool: GepaPool<P>, seed: number): GepaResult<P> {
  const { entries, bestIndex } = pool
  return {
    candidates: entries.map(({ program }) => program),
    parents: entries.map(({ parents }) => (parents.length > 0 ? parents : [null])),
    valAggregateScores: pool.averages,
    valSubscores: entries.map(({ scores }) => scores),
    perValInstanceBestCandidates: pool.fronts.map((front) => [...front].sort((a, b) => a - b)),
    highestScoreAchievedPerValTask: pool.bestScores,
    discoveryEvalCounts: entries.map(({ discovery }) => discovery),
    bestOutputsValset: pool.keepOutputs ? pool.bestOutputs : null,
    totalMetricCalls: pool.metricCalls,
    numFullValEvals: pool.fullEvaluations,
    seed,
    bestIdx: bestIndex,
    bestCandidate: entries[bestIndex]!.program,
  }
}

/** Puts the details beside the program's own attributes, where neither copies nor saved states see them. */
export function withDetails<P extends Module>(program: Optimized<P>, details: GepaResult<P>): GepaOptimized<P> {
  Object.defineProperty(program, 'detailedResults', { value: details, enumerable: false, configurable: true, writable: true })
  return program as GepaOptimized<P>
}
