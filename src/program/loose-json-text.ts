// The pieces of loose JSON: where a string ends, what an escape means, numbers and words without quotes.

import { strip } from './python-text'

const COMMENT = String.raw`(?:(?:\/\/|#)[^\n]*|\/\*[\s\S]*?\*\/)`
const COMMENT_THEN_END = new RegExp(String.raw`^\s*${COMMENT}\s*(?:[,}\]]|$)`)
const VALUE_AFTER_COLON = /^:\s*(?:["“[{]|(?:-?\d[\d.]*|true|false|null)\s*[,}\n])/
/** A comma, and after it a key, whole or cut off by the end of the text, or the end. */
const NEXT_MEMBER = new RegExp(
  String.raw`^\s*,\s*(?:${COMMENT}\s*)*(?:["'“][^"'”]*(?:["'”]\s*(?::|\}?\s*$)|\}?$)|[\p{L}_][\w-]*\s*:|\}|$)`,
  'u',
)

/** The value of a text that is JSON, Python's NaN and Infinity included; undefined when it isn't. */
export function exactJson(text: string): unknown {
  const special: Record<string, number> = {
    NaN: Number.NaN,
    Infinity: Number.POSITIVE_INFINITY,
    '-Infinity': Number.NEGATIVE_INFINITY,
  }
  const bare = text.replace(/^[ \t\n\r]+|[ \t\n\r]+$/g, '')
  if (Object.hasOwn(special, bare)) return special[bare]
  try {
    return JSON.parse(text)
  } catch {
    return undefined // not JSON as it stands: the loose reader goes over it
  }
}

/** Whether a value follows the colon that a text begins with: then a key ends before it, its closing quote forgotten. */
export function startsValue(text: string): boolean {
  return VALUE_AFTER_COLON.test(text)
}

/** Whether a quote before `rest` ends a string in a list or object that `close` ends; `:` for a key. */
export function endsString(rest: string, close: string): boolean {
  const next = /^\s*([^\s]?)/.exec(rest)![1]!
  if (close === ':') return next === ':' || next === '' || next === '}'
  if (next === '' || next === close || next === '}' || next === ']') return true
  if (next !== ',') return /^\s+["'“]/.test(rest) || COMMENT_THEN_END.test(rest) // the comma was forgotten
  return close !== '}' || NEXT_MEMBER.test(rest)
}

const ESCAPES: Readonly<Record<string, string>> = {
  n: '\n',
  t: '\t',
  r: '\r',
  b: '\b',
  f: '\f',
  '/': '/',
  '\\': '\\',
  '"': '"',
  "'": "'",
}

/** What the backslash at the start of a text means, and how many characters say so; one that means nothing stands for itself. */
export function readEscape(text: string): { readonly value: string; readonly length: number } {
  const hex = /^\\(?:u([\da-fA-F]{4})|x([\da-fA-F]{2}))/.exec(text)
  if (hex) return { value: String.fromCharCode(Number.parseInt(hex[1] ?? hex[2]!, 16)), length: hex[0].length }
  const value = Object.hasOwn(ESCAPES, text[1] ?? '') ? ESCAPES[text[1]!] : undefined
  return value === undefined ? { value: '\\', length: 1 } : { value, length: 2 }
}

/** A number, a literal, or text without quotes, at the start of a text; `close` ends the list or object around it. */
export function readBare(text: string, close: string): { readonly value: unknown; readonly length: number } {
  const grouped = close === '}' ? /^-?\d{1,3}(?:,\d{3})+(?=\s*[,}])/.exec(text) : null
  if (grouped) return { value: grouped[0], length: grouped[0].length }
  const number = /^(-?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?=[\s;,}\])]|\/\*|$);?/.exec(text)
  if (number) return { value: Number(number[1]!.replaceAll('_', '')), length: number[0].length }
  const ends = close === '}' ? /^[^,}\n\]]*/ : close === ')' ? /^[^,)\n]*/ : /^[^,\]}\n]*/
  const raw = ends.exec(text)![0]
  return { value: wordValue(strip(raw.replace(/\s(?:#|\/\/).*$/, ''))), length: raw.length }
}

function wordValue(text: string): unknown {
  const literal = { true: true, false: false, null: null, none: null }[text.toLowerCase()]
  if (literal !== undefined) return literal
  if (!/^[^"]+"$/.test(text)) return text
  const quoted = exactJson(`"${text}`) // only the opening quote was forgotten
  return typeof quoted === 'string' ? quoted : text.slice(0, -1)
}
