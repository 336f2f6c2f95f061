// Strings of a pattern or a format. The pattern's parts become a grammar; which characters a class holds, JavaScript's own RegExp says.

import { type AST, RegExpParser } from '@eslint-community/regexpp'
import { either, type Fragment, never, nothing, repeated, sequence, text } from './grammar'
import { PLAIN } from './json-text'
import { type ObjectSchema, SchemaError } from './schema-parts'
import { FORMATS } from './string-formats'
import { type CodePoints, codePoints } from './utf8'

/** More often nothing is repeated one by one. */
const MOST_REPEATS = 4096

/**
 * What stands between the quotes of a string, quotes included; null where nothing is said about it. A pattern that can't be kept gives way to a
 * format that is known: zod and others write both.
 */
export function patternText(schema: ObjectSchema, path: string): Fragment | null {
  const { pattern } = schema
  const format = FORMATS[String(schema['format'])]
  if (pattern === undefined) return format === undefined ? null : quoted(patternFragment(format, path))
  if (typeof pattern !== 'string')
    throw new SchemaError(path, `"pattern" is ${JSON.stringify(pattern)}; a regular expression as text is needed.`)
  try {
    return quoted(patternFragment(pattern, path))
  } catch (error) {
    if (format === undefined || !(error instanceof SchemaError)) throw error
    return quoted(patternFragment(format, path))
  }
}

function quoted(inside: Fragment): Fragment {
  return sequence(text('"'), inside, text('"'))
}

/** A pattern finds its match anywhere, unless it is anchored. */
function patternFragment(source: string, path: string): Fragment {
  const refuse = (what: string): never => {
    throw new SchemaError(path, `the pattern ${JSON.stringify(source)} ${what}.`)
  }
  let parsed: AST.Pattern
  try {
    parsed = new RegExpParser({ ecmaVersion: 2024 }).parsePattern(source, 0, source.length, { unicode: true })
  } catch (cause) {
    return refuse(`can't be read: ${(cause as Error).message}`)
  }
  const anything = repeated(characters(EVERY), 0)
  return either(
    ...parsed.alternatives.map(({ elements }) => {
      const [starts, ends] = [isEdge(elements[0], 'start'), isEdge(elements.at(-1), 'end')]
      const inner = elements.slice(starts ? 1 : 0, ends ? -1 : undefined).map((one) => elementText(one, refuse))
      return sequence(starts ? nothing : anything, ...inner, ends ? nothing : anything)
    }),
  )
}

function isEdge(element: AST.Element | undefined, kind: 'start' | 'end'): boolean {
  return element?.type === 'Assertion' && element.kind === kind
}

function elementText(element: AST.Element, refuse: (what: string) => never): Fragment {
  switch (element.type) {
    case 'Character':
      return characters([[element.value, element.value]])
    case 'CharacterSet':
    case 'CharacterClass':
      return characters(members(element.raw))
    case 'Group':
    case 'CapturingGroup':
      return either(...element.alternatives.map(({ elements }) => sequence(...elements.map((one) => elementText(one, refuse)))))
    case 'Quantifier':
      if (Math.max(element.min, element.max === Number.POSITIVE_INFINITY ? 0 : element.max) > MOST_REPEATS)
        return refuse(`repeats something more than ${MOST_REPEATS} times`)
      return repeated(elementText(element.element, refuse), element.min, element.max)
    default:
      return refuse(
        `uses ${element.raw}, which can't be promised: anchors inside, looking around and references back are left out`,
      )
  }
}

const EVERY: CodePoints = [[0, 0x10ffff]]
const MOST_CLASSES = 64
const known = new Map<string, CodePoints>()

/** The code points that a class such as [^a-z], \d or \p{L} matches. */
function members(raw: string): CodePoints {
  let ranges = known.get(raw)
  if (ranges) return ranges
  const test = new RegExp(`^${raw}$`, 'u')
  const found: [number, number][] = []
  for (let point = 0; point <= 0x10ffff; point++) {
    if (point === 0xd800) point = 0xe000
    if (!test.test(String.fromCodePoint(point))) continue
    const last = found.at(-1)
    if (last?.[1] === point - 1) last[1] = point
    else found.push([point, point])
  }
  if (known.size >= MOST_CLASSES) known.clear()
  known.set(raw, (ranges = found))
  return ranges
}

/** One character of these as it stands in a string of JSON: escaped where it must be. */
function characters(ranges: CodePoints): Fragment {
  const plain = PLAIN.flatMap(([low, high]) =>
    ranges.map(([from, to]): [number, number] => [Math.max(low, from), Math.min(high, to)]).filter(([from, to]) => from <= to),
  )
  const escaped = ESCAPED.filter((point) => ranges.some(([from, to]) => point >= from && point <= to))
  const parts = escaped.map((point) => text(JSON.stringify(String.fromCodePoint(point)).slice(1, -1)))
  if (plain.length > 0) parts.push(codePoints(plain))
  return parts.length === 0 ? never : either(...parts)
}

/** Control characters, the quote and the backslash. */
const ESCAPED = [...Array.from({ length: 0x20 }, (_, point) => point), 0x22, 0x5c]
