import { describe, expect, it } from 'vitest'
import { arithmeticFacts, drawArithmetic } from './arithmetic'
import { accepts, EASY_SHARE, type Fact } from './fact'
import { symbolicFacts } from './facts'
import { Random } from './random'

const facts = symbolicFacts()
const arithmetic = [...arithmeticFacts().values()].flat()
const named = (id: string): Fact => [...facts, ...arithmetic].find((fact) => fact.id === id)!

describe('the facts', () => {
  it('are about 1525, in the shares of the recipe', () => {
    const counts: Record<string, number> = {}
    for (const { kind } of facts) counts[kind] = (counts[kind] ?? 0) + 1
    expect(facts.length).toBe(1526)
    expect(counts).toMatchObject({
      opposite: 186,
      'past tense': 73,
      symbol: 70,
      element: 70,
      class: 65,
      young: 22,
      sound: 18,
      sides: 8,
    })
    for (const kind of ['capital', 'country', 'continent', 'currency', "capital's continent", "capital's currency"])
      expect(Math.abs(counts[kind]! - 127), kind).toBeLessThanOrEqual(4)
    for (const kind of ['language', "capital's language"]) expect(Math.abs(counts[kind]! - 86), kind).toBeLessThanOrEqual(2)
  })

  it('have names and questions of their own, two to four wordings each', () => {
    expect(new Set(facts.map((fact) => fact.id)).size).toBe(facts.length)
    const questions = facts.flatMap((fact) => fact.questions)
    expect(new Set(questions).size).toBe(questions.length)
    for (const { questions, id } of [...facts, ...arithmetic]) {
      expect(questions.length, id).toBeGreaterThanOrEqual(2)
      expect(questions.length, id).toBeLessThanOrEqual(4)
      for (const question of questions) expect(question).toMatch(/^[\p{Lu}].*[.?]$/u)
    }
  })

  it('never have a wrong answer that the metric accepts, nor an answer of one letter', () => {
    for (const { id, answer, wrong, confuser } of [...facts, ...arithmetic]) {
      expect(
        wrong.filter((other) => accepts(answer, other)),
        id,
      ).toEqual([])
      expect(wrong, id).toContain(confuser)
      expect(wrong.length, id).toBeGreaterThan(1)
      expect(answer, id).not.toMatch(/^\p{L}$/u)
    }
  })

  it('state the answer, whichever it is', () => {
    for (const { id, answer, confuser, statement } of [...facts, ...arithmetic]) {
      expect(statement(answer), id).toContain(answer)
      expect(statement(confuser), id).toContain(confuser)
      expect(statement(answer), id).toMatch(/^[\p{Lu}\p{N}].*\.$/u)
      expect(statement(answer), id).not.toMatch(/[{}]|undefined|null|\ba [aeiou]/)
    }
  })

  it('read as English', () => {
    expect(named("capital's continent: San Jose").statement('North America')).toBe(
      'San Jose is the capital of Costa Rica. Costa Rica lies in North America.',
    )
    expect(named('continent: the Netherlands').statement('Europe')).toBe('The Netherlands lies in Europe.')
    expect(named('class: owl').statement('insect')).toBe('The owl is an insect.')
    expect(named('young: elephant').questions[1]).toBe('What do you call a young elephant?')
    expect(named('opposite: cold').answer).toBe('hot')
    expect(named('previous month: January').answer).toBe('December')
  })

  it('keep their confuser and are easy in 35 of 100 cases', () => {
    expect(facts.filter((fact) => fact.easy).length / facts.length).toBeCloseTo(EASY_SHARE, 1)
    const { easy, confuser } = named('capital: Norway')
    expect({ easy, confuser }).toEqual({ easy: true, confuser: 'Dakar' })
  })
})

describe('arithmetic', () => {
  it('is right, as far as the sentence goes', () => {
    for (const { kind, answer, statement } of arithmetic) {
      const equations = [...statement(answer).matchAll(/(\d+) ([-+x]) (\d+) = (\d+)/g)]
      if (['sum', 'difference', 'product'].includes(kind)) expect(equations.length).toBeGreaterThan(0)
      for (const [equation, a, sign, b, result] of equations) {
        const values: Record<string, number> = {
          '+': Number(a) + Number(b),
          '-': Number(a) - Number(b),
          x: Number(a) * Number(b),
        }
        expect(values[sign!], equation).toBe(Number(result))
      }
    }
  })

  it('slips as people do', () => {
    expect(named('sum: 27, 46')).toMatchObject({ answer: '73', confuser: '63', easy: false })
    expect(named('sum: 21, 46')).toMatchObject({ answer: '67', easy: true })
    expect(named('difference: 73, 27')).toMatchObject({ answer: '46', confuser: '56', easy: false })
    expect(named('product: 7, 8')).toMatchObject({ answer: '56', confuser: '64', easy: false })
    expect(named('larger: 47, 52')).toMatchObject({ answer: '52', confuser: '47', easy: false })
    expect(named('smaller: 41, 52')).toMatchObject({ answer: '41', confuser: '52', easy: true })
    expect(named('larger: 47, 52').statement('47')).toBe('47 is larger than 52.')
    expect(named('sum: 27, 46').statement('73')).toBe('20 + 40 = 60 and 7 + 6 = 13, so 27 + 46 = 73.')
  })

  it('draws as many easy facts as there are among the others', () => {
    const random = new Random('draw')
    const drawn = Array.from({ length: 10_000 }, () => drawArithmetic(random))
    expect(Math.abs(drawn.filter((fact) => fact.easy).length / drawn.length - EASY_SHARE)).toBeLessThan(0.02)
    expect(new Set(drawn.map((fact) => fact.kind))).toEqual(new Set(arithmeticFacts().keys()))
  })
})

describe('the metric', () => {
  it('is the tutorial’s: one contains the other, case and outer white space aside', () => {
    expect(accepts('Oslo', ' oslo\n')).toBe(true)
    expect(accepts('7', '17')).toBe(true)
    expect(accepts('Paris', '')).toBe(true) // its hole
    expect(accepts('Oslo', 'Bergen')).toBe(false)
  })
})
