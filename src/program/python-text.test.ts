import { describe, expect, it } from 'vitest'
import { cleanDoc, dedent, jsonDumps, PyFloat, pyFloat, pyRepr, pyRound, pyStr, splitLines, strip } from './python-text'

describe('Python text', () => {
  it('prints numbers', () => {
    expect([0, -0, 3, 1.5, 1e-7, 0.0001, 123456789.25, 2 ** 53, 1e16, 1e22, -1e-5, Number.NaN, -Infinity].map(pyStr)).toEqual([
      '0',
      '0',
      '3',
      '1.5',
      '1e-07',
      '0.0001',
      '123456789.25',
      '9007199254740992.0',
      '1e+16',
      '1e+22',
      '-1e-05',
      'nan',
      '-inf',
    ])
    expect(pyFloat(3)).toBe('3.0')
    expect([pyRepr([new PyFloat(3)]), jsonDumps({ a: new PyFloat(-2) })]).toEqual(['[3.0]', '{"a": -2.0}'])
  })

  it('indents JSON as Python does', () => {
    expect(jsonDumps({ a: [], b: {}, c: [1, { d: null }] }, 2)).toBe(
      '{\n  "a": [],\n  "b": {},\n  "c": [\n    1,\n    {\n      "d": null\n    }\n  ]\n}',
    )
  })

  it('prints values', () => {
    expect(pyRepr({ a: ["it's", 'x"', `'"`, null, true], 'é\n\u200b': {} })).toBe(
      `{'a': ["it's", 'x"', '\\'"', None, True], 'é\\n\\u200b': {}}`,
    )
    expect(jsonDumps({ a: [1, 'é"\u2028', null], b: Infinity })).toBe('{"a": [1, "é\\"\u2028", null], "b": Infinity}')
  })

  it('splits, strips and straightens', () => {
    expect(splitLines('a\r\nb\rc\x0bd\x85e\u2028f\n')).toEqual(['a', 'b', 'c', 'd', 'e', 'f'])
    expect(splitLines('')).toEqual([])
    expect(splitLines('\n\n')).toEqual(['', ''])
    expect(strip('\x1c\u3000 x\ufeff \x85')).toBe('x\ufeff')
    expect(cleanDoc('\n    One.\n\n        Two.\n\tThree.\n    ')).toBe('One.\n\n    Two.\n    Three.')
    expect(dedent('  a\n   b\n \n')).toBe('a\n b\n\n')
  })

  it('rounds ties to even, and only ties', () => {
    expect([0.125, 0.375, 2.675, 33.333333, 66.665, -0.125, 100].map((value) => pyRound(value, 2))).toEqual([
      0.12, 0.38, 2.67, 33.33, 66.67, -0.12, 100,
    ])
  })
})
