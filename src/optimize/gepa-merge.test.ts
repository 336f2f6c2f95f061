import { describe, expect, it } from 'vitest'
import { Prediction, PythonRandom } from '../program'
import { Merger } from './gepa-merge'
import { GepaPool } from './gepa-pool'

/** A pool of candidates given by their texts, parents and validation scores. */
function poolOf(...rows: [texts: [string, string], parents: number[], scores: number[]][]): GepaPool {
  const pool = new GepaPool()
  for (const [[a, b], parents, scores] of rows)
    pool.add({ texts: { a, b }, program: null as never, parents }, { scores, outputs: scores.map(() => new Prediction({})) })
  return pool
}

const mergerOf = (pool: GepaPool, overlapFloor = 5) =>
  new Merger(pool, { maxInvocations: 1, overlapFloor, random: new PythonRandom(0) })

const STUDENT: [[string, string], number[], number[]] = [['a0', 'b0'], [], [0, 0, 0, 0, 0, 1]]

describe('Merger', () => {
  it('takes each predictor from the candidate that changed it, and tries it where the parents differ', () => {
    const merge = mergerOf(
      poolOf(STUDENT, [['a1', 'b0'], [0], [1, 1, 0, 0, 0, 1]], [['a0', 'b1'], [0], [0, 0, 1, 1, 0, 1]]),
    ).propose()!
    expect([merge.texts, merge.parents]).toEqual([{ a: 'a1', b: 'b1' }, [1, 2]])
    expect([...merge.ids].sort()).toEqual([0, 1, 2, 3, merge.ids[4]])
  })

  it('takes a predictor that both changed from the better one', () => {
    const merge = mergerOf(
      poolOf(STUDENT, [['a1', 'b1'], [0], [1, 1, 0, 1, 0, 1]], [['a2', 'b0'], [0], [0, 0, 1, 0, 0, 1]]),
    ).propose()!
    expect(merge.texts).toEqual({ a: 'a1', b: 'b1' })
  })

  it('merges a pair once', () => {
    const merger = mergerOf(poolOf(STUDENT, [['a1', 'b0'], [0], [1, 1, 0, 0, 0, 1]], [['a0', 'b1'], [0], [0, 0, 1, 1, 0, 1]]))
    expect(merger.propose()).not.toBeNull()
    expect(merger.propose()).toBeNull()
  })

  it.each([
    ['parent and child', [['a1', 'b0'], [0], [1, 1, 0, 0, 0, 0]], [['a1', 'b1'], [1], [0, 0, 1, 1, 0, 1]]],
    [
      'candidates that fell behind their ancestor',
      [['a1', 'b0'], [0], [0, 0, 0, 0, 0, 0]],
      [['a0', 'b1'], [0], [0, 0, 1, 1, 0, 1]],
    ],
    ['candidates that both changed everything', [['a1', 'b1'], [0], [1, 1, 0, 0, 0, 1]], [['a2', 'b2'], [0], [0, 0, 1, 1, 0, 1]]],
  ] as [string, typeof STUDENT, typeof STUDENT][])('does not merge %s', (_, one, two) => {
    expect(mergerOf(poolOf(STUDENT, one, two)).propose()).toBeNull()
  })

  it('needs enough validation examples', () => {
    const pool = poolOf([['a0', 'b0'], [], [0, 0]], [['a1', 'b0'], [0], [1, 0]], [['a0', 'b1'], [0], [0, 1]])
    expect(mergerOf(pool).propose()).toBeNull()
    expect(mergerOf(pool, 2).propose()!.ids.length).toBe(5)
  })

  it('is due once for every accepted mutation, until enough merges are kept', () => {
    const merger = mergerOf(poolOf(STUDENT))
    merger.allowOne()
    merger.allowOne()
    merger.keep()
    merger.allowOne()
    expect(merger.due).toBe(1)
  })
})
