// What JSON is made of: white space, strings, numbers, any value.

import {
  anyOf,
  bytesOf,
  call,
  either,
  type Fragment,
  type Grammar,
  nothing,
  optional,
  type Rule,
  repeated,
  sequence,
  text,
} from './grammar'
import { type CodePoints, codePoints } from './utf8'

/** Digits of a number's whole part: with fifteen every integer is exact in a double. */
export const MOST_DIGITS = 15
/** Columns a line may be indented by: white space must end, or a model that likes it never comes to the point. */
const MOST_INDENT = 32

/** Characters that stand in a string as they are. */
export const PLAIN: CodePoints = [
  [0x20, 0x21],
  [0x23, 0x5b],
  [0x5d, 0x10ffff],
]

const digit = bytesOf([0x30, 0x39])
const hex = anyOf('0123456789abcdefABCDEF')
const hexDigits = (count: number) => repeated(hex, count, count)

/** Rules that every JSON grammar shares. */
export interface JsonRules {
  /** Between tokens: nothing, one space, or a line break and an indent. */
  readonly space: Fragment
  /** One character of a string, plain or escaped. */
  readonly character: Rule
  readonly value: Rule
  readonly object: Rule
}

export function jsonRules(grammar: Grammar): JsonRules {
  const indented = sequence(text('\n'), repeated(anyOf(' \t'), 0, MOST_INDENT))
  const space = call(grammar.rule('white space', either(nothing, text(' '), indented)))
  const character = grammar.rule('character', either(codePoints(PLAIN), escaped()))
  const value = grammar.declare('value')
  const rules = { space, character, value, object: grammar.declare('object') }
  const any = call(value)
  rules.object.start = anyObject(rules)(grammar, grammar.end)
  const array = grammar.rule('array', listOf(any, rules))
  const plain = ['true', 'false', 'null'].map((word) => text(word))
  const rule = either(call(rules.object), call(array), string(rules), number({ fraction: true }), ...plain)
  value.start = rule(grammar, grammar.end)
  return rules
}

/** \n, \u0041, and surrogates in pairs only: a lone one is no character. */
function escaped(): Fragment {
  const unit = either(
    sequence(anyOf('0123456789abcefABCEF'), hexDigits(3)),
    sequence(anyOf('dD'), anyOf('01234567'), hexDigits(2)),
  )
  const pair = sequence(anyOf('dD'), anyOf('89abAB'), hexDigits(2), text('\\u'), anyOf('dD'), anyOf('cdefCDEF'), hexDigits(2))
  return sequence(text('\\'), either(anyOf('"\\/bfnrt'), sequence(text('u'), either(unit, pair))))
}

export function string(rules: JsonRules, least = 0, most = Number.POSITIVE_INFINITY): Fragment {
  return sequence(text('"'), repeated(call(rules.character), least, most), text('"'))
}

/** No sign before 0 alone, no leading zeros; the exponent has at most two digits, so every number is finite. */
export function number({ fraction }: { fraction: boolean }): Fragment {
  const whole = sequence(bytesOf([0x31, 0x39]), repeated(digit, 0, MOST_DIGITS - 1))
  if (!fraction) return either(text('0'), sequence(optional(text('-')), whole))
  const decimals = sequence(text('.'), repeated(digit, 1, MOST_DIGITS))
  const exponent = sequence(anyOf('eE'), optional(anyOf('+-')), repeated(digit, 1, 2))
  return sequence(optional(text('-')), either(text('0'), whole), optional(decimals), optional(exponent))
}

/** A property's value after its key. */
export function afterKey(value: Fragment): Fragment {
  return sequence(text(':'), optional(text(' ')), value)
}

function anyObject(rules: JsonRules): Fragment {
  const member = sequence(string(rules), afterKey(call(rules.value)))
  return between('{', member, '}', rules)
}

export function listOf(item: Fragment, rules: JsonRules, least = 0, most = Number.POSITIVE_INFINITY): Fragment {
  return between('[', item, ']', rules, [least, most])
}

/** Parts between brackets, with commas. */
function between(
  open: string,
  part: Fragment,
  close: string,
  { space }: JsonRules,
  [least, most] = [0, Number.POSITIVE_INFINITY],
): Fragment {
  const further = repeated(sequence(text(','), space, part), Math.max(0, least - 1), most - 1)
  const some = sequence(space, part, further, space, text(close))
  const choices = [...(most > 0 ? [some] : []), ...(least === 0 ? [text(close)] : [])]
  return sequence(text(open), either(...choices))
}
