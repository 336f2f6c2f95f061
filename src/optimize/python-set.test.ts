// The orders are those that CPython 3.11 prints for the same sets.
import { describe, expect, it } from 'vitest'
import { PythonSet } from './python-set'

describe('PythonSet', () => {
  it('iterates by slot, and finds a free one where two values share a slot', () => {
    expect([...new PythonSet([9, 3])]).toEqual([9, 3])
    expect([...new PythonSet([33, 1, 9, 17, 4])]).toEqual([33, 1, 4, 9, 17])
    expect([...new PythonSet([0, 8, 16, 24, 32, 40, 1])]).toEqual([0, 32, 1, 8, 40, 16, 24])
  })

  it('holds a value once', () => {
    const set = new PythonSet([4, 4]).add(4)
    expect([set.size, set.has(4), set.has(12)]).toEqual([1, true, false])
  })

  it('may order a copy otherwise than the original, as its table has another size', () => {
    const grown = new PythonSet([20, 3, 37, 11, 5, 50])
    expect([...grown]).toEqual([3, 5, 37, 11, 50, 20])
    expect([...new PythonSet(grown)]).toEqual([50, 3, 20, 5, 37, 11])
  })

  it('intersects', () => {
    expect([...new PythonSet([5, 9, 40]).and(new PythonSet([40, 9, 1, 2]))]).toEqual([40, 9])
  })
})
