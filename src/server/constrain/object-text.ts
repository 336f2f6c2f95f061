// Objects: declared properties in their order, those that aren't required left out at will, and others behind them where the schema lets them.

import { ByteSet, type Fragment, type Grammar, type Node, sequence, text } from './grammar'
import { afterKey, type JsonRules, PLAIN } from './json-text'
import { codePoints } from './utf8'

export interface Property {
  readonly name: string
  /** Key and value. */
  readonly text: Fragment
  readonly required: boolean
}

/** Properties that the schema doesn't name. */
export interface Further {
  readonly value: Fragment
  /** Null: any that isn't declared. */
  readonly key: Fragment | null
}

export function objectOf(properties: readonly Property[], further: Further | null, { space }: JsonRules): Fragment {
  const comma = sequence(text(','), space)
  const names = properties.map(({ name }) => name)
  const other = further && sequence(further.key ?? otherKey(names), afterKey(further.value))
  return (grammar, next) => {
    const close = text('}')(grammar, next)
    const closeAfter = sequence(space, text('}'))(grammar, next)
    // What may come behind the declared properties: after one, and where there is none yet.
    let after: Node = closeAfter
    let first: Node = close
    if (other) {
      const loop = grammar.choice([])
      loop.to = [sequence(comma, other)(grammar, loop), closeAfter]
      after = loop
      first = grammar.choice([sequence(space, other)(grammar, loop), close])
    }
    for (const property of [...properties].reverse()) {
      const [skipAfter, skipFirst] = [after, first]
      const own = property.text(grammar, skipAfter)
      const [goOn, begin] = [comma(grammar, own), space(grammar, own)]
      after = property.required ? goOn : grammar.choice([goOn, skipAfter])
      first = property.required ? begin : grammar.choice([begin, skipFirst])
    }
    return text('{')(grammar, first)
  }
}

/** A key that is none of these, without escapes: so that no other way of writing one of them slips through. */
function otherKey(names: readonly string[]): Fragment {
  return sequence(text('"'), (grammar, next) =>
    keysBut(
      grammar,
      next,
      names.map((name) => [...name]),
    ),
  )
}

/** Characters up to and with the closing quote, unless they are exactly one of `names`. */
function keysBut(grammar: Grammar, next: Node, names: readonly (readonly string[])[]): Node {
  const quote = new ByteSet([[0x22, 0x22]])
  if (names.length === 0) {
    const loop = grammar.choice([])
    loop.to = [codePoints(PLAIN)(grammar, loop), grammar.byte(quote, next)]
    return loop
  }
  const heads = [...new Set(names.flatMap((name) => name[0] ?? []))].sort((a, b) => a.codePointAt(0)! - b.codePointAt(0)!)
  const ways = heads.filter(isPlain).map((head) => {
    const rest = names.filter((name) => name[0] === head).map((name) => name.slice(1))
    return text(head)(grammar, keysBut(grammar, next, rest))
  })
  ways.push(codePoints(plainBut(heads))(grammar, keysBut(grammar, next, [])))
  if (names.every((name) => name.length > 0)) ways.push(grammar.byte(quote, next))
  return grammar.choice(ways)
}

function isPlain(character: string): boolean {
  const point = character.codePointAt(0)!
  return PLAIN.some(([low, high]) => point >= low && point <= high)
}

function plainBut(characters: readonly string[]): [number, number][] {
  let ranges = PLAIN.map(([low, high]): [number, number] => [low, high])
  for (const character of characters) {
    const point = character.codePointAt(0)!
    ranges = ranges.flatMap(([low, high]): [number, number][] =>
      point < low || point > high
        ? [[low, high]]
        : [
            [low, point - 1],
            [point + 1, high],
          ],
    )
  }
  return ranges.filter(([low, high]) => low <= high)
}
