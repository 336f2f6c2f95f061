// Reads JSON as language models write it: in prose or code fences, with single quotes, bare keys, trailing commas, no closing bracket.

import { endsString, exactJson, readBare, readEscape, startsValue } from './loose-json-text'
import { pyNumber, stripEnd } from './python-text'

const QUOTES: Record<string, string> = { '"': '"', "'": "'", '“': '”', '”': '”' }
const CLOSERS: Record<string, string> = { '{': '}', '[': ']', '(': ')' }

/**
 * The JSON value in a text: the text itself where it is JSON (Python's NaN and Infinity included), else the objects and lists found in
 * it, one value or a list of several. `''` when there is none, which is also what an empty text gives.
 */
export function looseJson(text: string): unknown {
  const exact = exactJson(text)
  return exact === undefined ? new Reader(text).document() : exact
}

class Reader {
  #at = 0
  /** What closes the lists and objects being read, outermost first. */
  readonly #closers: string[] = []
  readonly #text: string

  constructor(text: string) {
    this.#text = text
  }

  document(): unknown {
    if (/^\s*"/.test(this.#text)) {
      const braced = this.#withoutBrace()
      if (braced !== undefined) return braced
    }
    const values: unknown[] = []
    for (;;) {
      const separated = /,\s*$/.test(this.#text.slice(0, this.#at)) || /^\s*,/.test(this.#text.slice(this.#at))
      this.#skipProse()
      if (this.#at >= this.#text.length) break
      const value = values.length === 0 ? (this.#soundContainer() ?? this.#container()) : this.#container()
      if (values.length > 0 && isEmpty(value)) continue
      // The same shape again is a corrected version of what stood before.
      if (values.length > 0 && ((!separated && sameShape(values.at(-1), value)) || isEmpty(values.at(-1)))) values.pop()
      values.push(value)
    }
    if (values.length === 0) return ''
    return values.length === 1 ? values[0] : values
  }

  /** The object or list that begins here, when it is JSON as it stands and only what surrounds it isn't. */
  #soundContainer(): unknown {
    const open: string[] = []
    for (let at = this.#at, inString = false; at < this.#text.length; at++) {
      const char = this.#text[at]!
      if (inString && char === '\\') at++
      else if (char === '"') inString = !inString
      else if (!inString && (char === '{' || char === '[')) open.push(CLOSERS[char]!)
      else if (!inString && (char === '}' || char === ']')) {
        if (open.pop() !== char) return undefined
        if (open.length > 0) continue
        const value = exactJson(this.#text.slice(this.#at, at + 1))
        if (value !== undefined) this.#at = at + 1
        return value
      }
    }
    return undefined
  }

  /** `"a": 1}`: an object whose opening brace is missing, when that alone is wrong. */
  #withoutBrace(): unknown {
    return /^\s*"[^"]*"\s*:[\s\S]*\}\s*$/.test(this.#text) ? exactJson(`{${this.#text}`) : undefined
  }

  #skipProse(): void {
    while (this.#at < this.#text.length) {
      const char = this.#text[this.#at]!
      if (char === '{' || char === '[') return
      if (char === '(' && this.#startsTuple()) return
      if (!this.#skipComment()) this.#at++
    }
  }

  /** A parenthesis opens a value only where it stands alone on its line; otherwise it is prose. */
  #startsTuple(): boolean {
    const before = this.#text.slice(0, this.#at)
    const rest = this.#text.slice(this.#at)
    const line = /^\(\s*(?:(?:[{[("'“\d.-]|true|false|null|none)[^\n]*)?\)[^\S\n]*(?:\n|$)/i
    return /(?:^|[\n\r])[^\S\n]*$/.test(before) && line.test(rest)
  }

  #skipComment(): boolean {
    const rest = this.#text.slice(this.#at)
    if (rest[0] === '#') {
      // a hash may be no comment but a stray mark: inside brackets it ends with them
      const end = rest.split('').findIndex((char) => char === '\n' || char === '\r' || this.#closers.includes(char))
      this.#at += end === -1 ? rest.length : end
      return true
    }
    const comment = /^\/\/[^\n\r]*|^\/\*[\s\S]*?(?:\*\/|$)/.exec(rest)
    if (comment) this.#at += comment[0].length
    return comment !== null
  }

  #skipSpace(): void {
    do this.#at += /^\s*/.exec(this.#text.slice(this.#at))![0].length
    while (this.#skipComment())
  }

  #container(inObject = false): unknown {
    const open = this.#text[this.#at]!
    this.#closers.push(CLOSERS[open]!)
    const value = open === '{' ? this.#object() : this.#bracketed(open, inObject)
    this.#closers.pop()
    return value
  }

  #bracketed(open: string, inObject: boolean): unknown {
    const items = this.#list(CLOSERS[open]!, inObject)
    return open === '(' && items.length === 1 && !/,\s*\)\s*$/.test(this.#text.slice(0, this.#at)) ? items[0] : items
  }

  #object(): unknown {
    const start = this.#at++
    const fields: Record<string, unknown> = {}
    for (;;) {
      this.#skipSpace()
      const char = this.#text[this.#at]
      if (char === undefined) break
      if (char === '}') {
        this.#at++
        break
      }
      if (char === ']') break // the object was never closed; its list goes on
      if (char === ',' || char === ':') {
        this.#at++
        continue
      }
      const isQuoted = char in QUOTES
      const key = this.#key()
      this.#skipSpace()
      if (this.#text[this.#at] !== ':') {
        if (Object.keys(fields).length > 0) continue
        if (isQuoted || !this.#skipToKey(start)) return this.#set(start)
        continue
      }
      this.#at++
      fields[key] = this.#value('}')
    }
    return fields
  }

  /** `\\frac{1}{2} … "a": 1}`: braces of prose, when a key comes after them; the object is read from there. */
  #skipToKey(start: number): boolean {
    const key = /(?:"[^"\n]*"|[\p{L}\p{N}_.}-]+)\s*:/u.exec(this.#text.slice(start + 1))
    if (key) this.#at = start + 1 + key.index
    return key !== null
  }

  /** Braces without a key are a set: a list. */
  #set(start: number): unknown[] {
    this.#at = start
    return this.#list('}')
  }

  #list(close: string, inObject = false): unknown[] {
    this.#at++
    const items: unknown[] = []
    for (;;) {
      this.#skipSpace()
      const char = this.#text[this.#at]
      if (char === undefined) break
      if (char === close || char === '}') {
        this.#at++
        break
      }
      if (char === ',') {
        this.#at++
        continue
      }
      if (inObject && items.length > 0 && this.#startsMember()) break // the list was never closed; its object goes on
      const before = this.#at
      const value = this.#value(close)
      const isStray = value === '...' && this.#text[this.#at - 1] === '.'
      const next = this.#text[this.#at]
      if (isEmpty(value) && value !== null && next !== close && next !== ',') this.#at++
      else if (!isStray) items.push(value)
      if (this.#at === before) this.#at++
    }
    return items
  }

  #startsMember(): boolean {
    return /^(["'])[^"']*\1\s*:/.test(this.#text.slice(this.#at))
  }

  #key(): string {
    const quote = QUOTES[this.#text[this.#at]!]
    if (quote) return this.#quoted(quote, ':')
    return this.#bareKey()
  }

  #bareKey(): string {
    const key = /^[^\s:,{}[\]]*/.exec(this.#text.slice(this.#at))![0]
    this.#at += Math.max(1, key.length)
    return key.replace(/["']+$/, '')
  }

  /** A value inside an object or list that ends with `close`. */
  #value(close: string): unknown {
    this.#skipSpace()
    const char = this.#text[this.#at]
    if (char === undefined || char === ',' || char === close) return ''
    if (char === '{' || char === '[' || char === '(') return this.#container(close === '}')
    const quote = QUOTES[char]
    if (quote) return this.#quoted(quote, close)
    return this.#bare(close)
  }

  /** A quote closes its string only where something follows that may follow a string; else it is part of the text. */
  #quoted(quote: string, close: string): string {
    const start = this.#at + 1
    let text = ''
    for (this.#at++; this.#at < this.#text.length; this.#at++) {
      const char = this.#text[this.#at]!
      if (char === '\\') {
        const escaped = readEscape(this.#text.slice(this.#at))
        text += escaped.value
        this.#at += escaped.length - 1
      } else if (close === ':' && startsValue(this.#text.slice(this.#at)))
        return text // the key's quote was forgotten
      else if (char === quote && endsString(this.#text.slice(this.#at + 1), close)) {
        this.#at++
        return text
      } else text += char
    }
    if (close !== ':') return stripEnd(text).replace(/[\s}\]]*$/, '') // cut off, or the closing quote was forgotten at the end
    this.#at = start
    return this.#bareKey()
  }

  #bare(close: string): unknown {
    const { value, length } = readBare(this.#text.slice(this.#at), close)
    this.#at += length
    return value
  }
}

function isEmpty(value: unknown): boolean {
  return value === '' || value === null || (typeof value === 'object' && Object.keys(value).length === 0)
}

function sameShape(a: unknown, b: unknown): boolean {
  if (a === null || b === null || typeof a !== 'object' || typeof b !== 'object') return kindOf(a) === kindOf(b)
  const [keysA, keysB] = [Object.keys(a), Object.keys(b)]
  if (Array.isArray(a) !== Array.isArray(b) || keysA.length !== keysB.length) return false
  return keysA.every((key) => Object.hasOwn(b, key) && sameShape((a as never)[key], (b as never)[key]))
}

/** JSON kind, whole numbers and fractions apart as in Python. */
function kindOf(value: unknown): string {
  return typeof value === 'number' ? (pyNumber(value).includes('.') ? 'float' : 'int') : value === null ? 'null' : typeof value
}
