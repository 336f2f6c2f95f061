// Reads the values of one JSON object while it comes: text fields decoded, others as they are written.

import type { FieldPiece, FieldReader } from './stream-fields'

/** `between`: before the object, or between its members. */
type Place = 'between' | 'key' | 'colon' | 'value' | 'text' | 'raw' | 'done'

const ESCAPES: Readonly<Record<string, string>> = { n: '\n', t: '\t', r: '\r', b: '\b', f: '\f' }

export class JsonFieldReader implements FieldReader {
  #place: Place = 'between'
  #field = ''
  /** The beginning of an escape in a text, a key so far. */
  #held = ''
  /** Open brackets in a value that is no text; inside a string in it. */
  #depth = 0
  #quoted = false
  /** What the present piece says so far. */
  #chunk = ''
  #pieces: FieldPiece[] = []

  write(text: string): FieldPiece[] {
    for (const char of text) this.#read(char)
    if (this.#place === 'text' || this.#place === 'raw') this.#tell(false)
    return this.#taken()
  }

  end(): FieldPiece[] {
    if (this.#place === 'text' || this.#place === 'raw') this.#tell(true)
    this.#place = 'done'
    return this.#taken()
  }

  #taken(): FieldPiece[] {
    const pieces = this.#pieces
    this.#pieces = []
    return pieces
  }

  /** Blanks after a value that is no text may be the layout's: they wait for what follows. */
  #tell(isLast: boolean): void {
    const told = this.#place === 'raw' ? this.#chunk.trimEnd() : this.#chunk
    if (told !== '' || isLast) this.#pieces.push({ field: this.#field, chunk: told, isLast })
    this.#chunk = isLast ? '' : this.#chunk.slice(told.length)
  }

  #read(char: string): void {
    if (this.#place === 'key') this.#readKey(char)
    else if (this.#place === 'value') this.#beginValue(char)
    else if (this.#place === 'text') this.#readText(char)
    else if (this.#place === 'raw') this.#readRaw(char)
    else if (this.#place === 'colon' && char === ':') this.#enter('value')
    else if (this.#place === 'between' && char === '"') this.#enter('key')
  }

  #enter(place: Place): void {
    this.#place = place
    this.#held = ''
  }

  #readKey(char: string): void {
    if (char !== '"') this.#held += char
    else {
      this.#field = this.#held
      this.#enter('colon')
    }
  }

  #beginValue(char: string): void {
    if (/\s/.test(char)) return
    this.#enter(char === '"' ? 'text' : 'raw')
    if (char === '"') return
    this.#depth = 0
    this.#quoted = false
    this.#readRaw(char)
  }

  #readText(char: string): void {
    if (this.#held !== '') this.#readEscape(char)
    else if (char === '\\') this.#held = char
    else if (char === '"') this.#finish()
    else this.#chunk += char
  }

  #readEscape(char: string): void {
    this.#held += char
    if (this.#held[1] !== 'u') this.#chunk += ESCAPES[char] ?? char
    else if (this.#held.length === 6) this.#chunk += String.fromCharCode(Number.parseInt(this.#held.slice(2), 16))
    else return
    this.#held = ''
  }

  #readRaw(char: string): void {
    const ends = !this.#quoted && this.#depth === 0 && /[,}\]]/.test(char)
    if (ends) {
      this.#finish(char)
      return
    }
    this.#chunk += char
    if (this.#held === '\\') this.#held = ''
    else if (this.#quoted && char === '\\') this.#held = char
    else if (char === '"') this.#quoted = !this.#quoted
    else if (!this.#quoted && /[{[]/.test(char)) this.#depth++
    else if (!this.#quoted && /[}\]]/.test(char)) this.#depth--
  }

  #finish(char = ''): void {
    this.#tell(true)
    this.#enter(char === '}' ? 'done' : 'between')
  }
}
