import { describe, expect, it } from 'vitest'
import { looseJson } from './loose-json'

describe('looseJson', () => {
  it.each([
    ['{"a": [1, null]}', { a: [1, null] }],
    ["{'a': True, 'b': None}", { a: true, b: null }],
    ['Sure!\n```json\n{\n  "a": "b",\n  "c": [1, 2,],\n}\n```\nHope it helps', { a: 'b', c: [1, 2] }],
    ['{name: Ann, age: 3,}', { name: 'Ann', age: 3 }],
    ['["a", "b"', ['a', 'b']],
    ['{"a": "hello, wor', { a: 'hello, wor' }],
    ['{"q": "say "yes", then go", "n": 1}', { q: 'say "yes", then go', n: 1 }],
    ['{"a": "x"\n"b": "y"}', { a: 'x', b: 'y' }],
    ['{"a": [1, 2, "b": 3}', { a: [1, 2], b: 3 }],
    ['{"a": "b",\n// note\n"c": 1}', { a: 'b', c: 1 }],
    ['{"a": 1} {"a": 2}', { a: 2 }],
    ['{"a": 1}, {"a": 2}', [{ a: 1 }, { a: 2 }]],
    ['{"a": 1,000}', { a: '1,000' }],
    ['(1, "a")', [1, 'a']],
    ['a note (in brackets): [1]', [1]],
    ['"a": 1}', { a: 1 }],
    ['{“a”: “b”}', { a: 'b' }],
    ['["caf\\u00e9", "C:\\path"]', ['café', 'C:\\path']],
    ['["a", ""]\n\n[[ ## compl', ['a', '']],
    ['{}\n\n[[ ## ', {}],
    ['\\frac{1}{2} so {"a": "b"}', { a: 'b' }],
    ['{"a": "b", "c', { a: 'b' }],
    ['{"a": "b", /* x */ "c": "d" // y\n}', { a: 'b', c: 'd' }],
    ['{"a": [\n  ""\n ]} indeed', { a: [''] }],
    ['{"a: "b", "c": 1}', { a: 'b', c: 1 }],
    ['NaN', Number.NaN],
    ['just words', ''],
    ['', ''],
  ])('reads %j', (text, value) => {
    expect(looseJson(text)).toEqual(value)
  })

  it('comes to an end on any text', () => {
    const pieces = ['{', '}', '[', ']', '(', ')', '"', "'", ':', ',', '#', '//', '/*', '\\', ' ', '\n', 'a', '1', '“', '...']
    let seed = 1
    const next = () => (seed = (seed * 48271) % 2147483647)
    for (let i = 0; i < 3000; i++) {
      const text = Array.from({ length: next() % 14 }, () => pieces[next() % pieces.length]).join('')
      expect(() => looseJson(text), text).not.toThrow()
    }
  })
})
