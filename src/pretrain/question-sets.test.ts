import { describe, expect, it } from 'vitest'
import { arithmeticFacts } from './arithmetic'
import { symbolicFacts } from './facts'
import { questionSets, splitFacts } from './question-sets'

const splits = splitFacts()
const all = [...splits.train, ...splits.dev, ...splits.test]

describe('the question sets', () => {
  it('have 1535, 200 and 300 facts, a quarter of them arithmetic', () => {
    expect([splits.train.length, splits.dev.length, splits.test.length]).toEqual([1535, 200, 300])
    const arithmetic = arithmeticFacts()
    expect(all.filter((fact) => arithmetic.has(fact.kind)).length).toBe(510)
  })

  it('share no fact, nor one with the numbers exchanged', () => {
    const sorted = (id: string) =>
      id.startsWith('difference') ? id : id.replace(/(\d+), (\d+)/, (_, a, b) => [a, b].sort().join(', '))
    expect(new Set(all.map((fact) => sorted(fact.id))).size).toBe(2035)
    expect(new Set(all.flatMap((fact) => fact.questions)).size).toBe(all.flatMap((fact) => fact.questions).length)
  })

  it('ask nothing that pretraining cannot ask', () => {
    const known = new Set([...symbolicFacts(), ...[...arithmeticFacts().values()].flat()].flatMap((fact) => fact.questions))
    const { train, dev, test, demos } = questionSets()
    expect([...train, ...dev, ...test].filter((row) => !known.has(row.question))).toEqual([])
    const asked = new Set(all.flatMap((fact) => fact.questions))
    expect(demos.filter((demo) => asked.has(demo.question))).toEqual([])
  })

  it('have equal shares of easy facts and of well known kinds', () => {
    for (const facts of [splits.train, splits.dev, splits.test]) {
      expect(Math.abs(facts.filter((fact) => fact.easy).length / facts.length - 0.35)).toBeLessThan(0.01)
      expect(Math.abs(facts.filter((fact) => fact.level === 'familiar').length / facts.length - 0.2)).toBeLessThan(0.01)
    }
  })

  it('mix the categories within a set, so that a slice of it is like the whole', () => {
    const first = questionSets().dev.slice(0, 100)
    expect(new Set(first.map((row) => row.category)).size).toBeGreaterThan(15)
    expect(first.filter((row) => row.category === 'opposite').length).toBeLessThan(20)
  })
})
