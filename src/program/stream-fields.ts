// Reads the fields of a completion while it comes: text in, pieces of fields out. What may yet turn out to be markup is held back.

import type { Adapter } from './adapter'
import { ChatAdapter } from './chat-adapter'
import { JSONAdapter } from './json-adapter'
import { JsonFieldReader } from './stream-json'
import { XMLAdapter } from './xml-adapter'

/** Some text of a field. The last piece may be empty. */
export interface FieldPiece {
  readonly field: string
  readonly chunk: string
  readonly isLast: boolean
}

export interface FieldReader {
  /** What more of the completion tells. */
  write(text: string): FieldPiece[]
  /** What was held back when the completion ends. */
  end(): FieldPiece[]
}

/** A reader of an adapter's format; null for a format that can't be read in pieces. */
export function fieldReader(adapter: Adapter): FieldReader | null {
  if (adapter instanceof XMLAdapter) return new MarkedFieldReader(XML)
  if (adapter instanceof ChatAdapter) return new MarkedFieldReader(CHAT)
  return adapter instanceof JSONAdapter ? new JsonFieldReader() : null
}

/** How a format marks where fields begin and end. */
interface Markers {
  /** The next mark from `from` on: which field begins there, or null where one ends. `atStart`: nothing came before. */
  find(text: string, open: string | null, atStart: boolean): { start: number; end: number; field: string | null } | null
  /** The end of the text that may be the beginning of a mark. */
  readonly unsure: RegExp
  /** The text as the field's value has it. */
  readonly decode: (text: string) => string
}

const HEADER = /(^|\n)[^\S\n]*\[\[ ## ([\p{L}\p{N}_]+) ## \]\]/u
const LATER_HEADER = /(\n)[^\S\n]*\[\[ ## ([\p{L}\p{N}_]+) ## \]\]/u

/** `[[ ## name ## ]]` at the start of a line ends one field and begins the next. */
const CHAT: Markers = {
  find(text, _, atStart) {
    const match = (atStart ? HEADER : LATER_HEADER).exec(text)
    return match && { start: match.index, end: match.index + match[0].length, field: match[2]! }
  },
  unsure: /\s*(?:\[(?:\[(?: (?:#(?:#(?: (?:[\p{L}\p{N}_]+(?: (?:#(?:#(?: \]?)?)?)?)?)?)?)?)?)?)?)?$/u,
  decode: (text) => text,
}

const ENTITIES: Readonly<Record<string, string>> = { lt: '<', gt: '>', amp: '&', quot: '"', apos: "'" }

/** `<name>` begins a field, its own `</name>` ends it; what is nested in between belongs to it. */
const XML: Markers = {
  find(text, open) {
    const match = (open === null ? /<([\p{L}\p{N}_]+)>/u : new RegExp(`</${open}>`)).exec(text)
    return match && { start: match.index, end: match.index + match[0].length, field: match[1] ?? null }
  },
  unsure: /\s*(?:<\/?[\p{L}\p{N}_]*|&[#\w]*)?$/u,
  decode: (text) =>
    text.replace(/&(?:#(\d+)|#x([\da-f]+)|(\w+));/gi, (all, decimal?: string, hex?: string, name?: string) => {
      if (name !== undefined) return ENTITIES[name] ?? all
      return String.fromCodePoint(decimal === undefined ? Number.parseInt(hex!, 16) : Number(decimal))
    }),
}

class MarkedFieldReader implements FieldReader {
  readonly #markers: Markers
  /** Not yet told of. */
  #pending = ''
  #field: string | null = null
  /** Nothing has been read yet. */
  #atStart = true
  /** The value has begun: white space before it isn't part of it. */
  #begun = false
  readonly #seen = new Set<string>()

  constructor(markers: Markers) {
    this.#markers = markers
  }

  write(text: string): FieldPiece[] {
    this.#pending += text
    const pieces: FieldPiece[] = []
    for (let mark = this.#find(); mark; mark = this.#find()) {
      pieces.push(...this.#close(this.#pending.slice(0, mark.start)))
      this.#pending = this.#pending.slice(mark.end)
      this.#atStart = false
      this.#open(mark.field)
    }
    const sure = this.#markers.unsure.exec(this.#pending)!.index
    if (sure > 0) {
      pieces.push(...this.#piece(this.#pending.slice(0, sure), false))
      this.#pending = this.#pending.slice(sure)
      this.#atStart = false
    }
    return pieces
  }

  end(): FieldPiece[] {
    const rest = this.#pending
    this.#pending = ''
    return this.#close(rest)
  }

  #find() {
    return this.#markers.find(this.#pending, this.#field, this.#atStart)
  }

  /** Of two fields of one name the first counts, as in the parse. */
  #open(field: string | null): void {
    this.#field = field === null || this.#seen.has(field) ? null : field
    if (this.#field !== null) this.#seen.add(this.#field)
    this.#begun = false
  }

  #close(text: string): FieldPiece[] {
    const pieces = this.#piece(text.trimEnd(), true)
    this.#field = null
    return pieces
  }

  #piece(text: string, isLast: boolean): FieldPiece[] {
    if (this.#field === null) return []
    const raw = this.#begun ? text : text.trimStart()
    if (raw === '' && !isLast) return []
    this.#begun = true
    return [{ field: this.#field, chunk: this.#markers.decode(raw), isLast }]
  }
}
