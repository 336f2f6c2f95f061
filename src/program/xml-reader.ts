// A strict XML reader for completions: well-formed or an error, as expat; text, elements, attributes, CDATA, no namespaces, no DTD.

/** An element with the text before its first child, and the text behind it. */
export interface XmlElement {
  readonly tag: string
  readonly attributes: Readonly<Record<string, string>>
  text: string
  readonly children: XmlElement[]
  tail: string
}

/** The text isn't well-formed. */
export class XmlError extends Error {
  override readonly name = 'XmlError'
}

const NAME =
  '[:A-Z_a-z\\u00c0-\\u00d6\\u00d8-\\u00f6\\u00f8-\\u02ff\\u0370-\\u037d\\u037f-\\u1fff\\u200c\\u200d\\u2070-\\u218f\\u2c00-\\u2fef\\u3001-\\ud7ff\\uf900-\\ufdcf\\ufdf0-\\ufffd\\u{10000}-\\u{effff}][:A-Z_a-z\\u00c0-\\u00d6\\u00d8-\\u00f6\\u00f8-\\u02ff\\u0370-\\u037d\\u037f-\\u1fff\\u200c\\u200d\\u2070-\\u218f\\u2c00-\\u2fef\\u3001-\\ud7ff\\uf900-\\ufdcf\\ufdf0-\\ufffd\\u{10000}-\\u{effff}.\\-0-9\\u00b7\\u0300-\\u036f\\u203f-\\u2040]*'
const OPEN = new RegExp(`<(${NAME})((?:\\s+${NAME}\\s*=\\s*(?:"[^"<]*"|'[^'<]*'))*)\\s*(/?)>`, 'uy')
const CLOSE = new RegExp(`</(${NAME})\\s*>`, 'uy')
const ATTRIBUTE = new RegExp(`(${NAME})\\s*=\\s*(?:"([^"]*)"|'([^']*)')`, 'gu')
const SKIPPED = /<!--(?:(?!--)[\s\S])*-->|<\?(?!xml[\s?])[\s\S]*?\?>/y
const CDATA = /<!\[CDATA\[([\s\S]*?)\]\]>/y
const TEXT = /[^<]+/y
const FORBIDDEN = /[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]|\p{Cs}/u
const ENTITIES: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }

/** Reads one element that spans the whole text. @throws XmlError */
export function parseXml(text: string): XmlElement {
  const source = text.replace(/\r\n?/g, '\n')
  const bad = FORBIDDEN.exec(source)
  if (bad)
    throw new XmlError(
      `not well-formed: character U+${bad[0].charCodeAt(0).toString(16).padStart(4, '0')} at ${place(source, bad.index)}`,
    )
  return new XmlReader(source).document()
}

function place(source: string, at: number): string {
  const lines = source.slice(0, at).split('\n')
  return `line ${lines.length}, column ${lines.at(-1)!.length}`
}

class XmlReader {
  readonly #source: string
  #at = 0

  constructor(source: string) {
    this.#source = source
  }

  document(): XmlElement {
    const root: XmlElement = { tag: '', attributes: {}, text: '', children: [], tail: '' }
    const open: XmlElement[] = [root]
    while (this.#at < this.#source.length) this.#step(open)
    if (open.length > 1) throw new XmlError(`no closing tag for <${open.at(-1)!.tag}>`)
    if (root.children.length !== 1 || root.text !== '' || root.children[0]!.tail !== '')
      throw new XmlError('text outside the root element')
    return root.children[0]!
  }

  #step(open: XmlElement[]): void {
    const parent = open.at(-1)!
    const text = this.#match(TEXT)
    const cdata = text ? null : this.#match(CDATA)
    if (text) this.#addText(parent, this.#decode(text[0]))
    else if (cdata) this.#addText(parent, cdata[1]!)
    else if (!this.#match(SKIPPED)) this.#tag(open)
  }

  #tag(open: XmlElement[]): void {
    const parent = open.at(-1)!
    const close = this.#match(CLOSE)
    if (close) {
      if (open.length === 1 || close[1] !== parent.tag)
        throw new XmlError(`mismatched tag </${close[1]}> at ${place(this.#source, this.#at)}`)
      open.pop()
      return
    }
    const start = this.#match(OPEN)
    if (!start) throw new XmlError(`not well-formed at ${place(this.#source, this.#at)}`)
    const element: XmlElement = {
      tag: this.#name(start[1]!),
      attributes: this.#attributes(start[2]!),
      text: '',
      children: [],
      tail: '',
    }
    parent.children.push(element)
    if (start[3] === '') open.push(element)
  }

  #match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.#at
    const match = pattern.exec(this.#source)
    if (match) this.#at = pattern.lastIndex
    return match
  }

  /** A prefix would need a namespace, and nothing declares one. */
  #name(name: string): string {
    if (name.includes(':')) throw new XmlError(`unbound prefix in <${name}> at ${place(this.#source, this.#at)}`)
    return name
  }

  #addText(parent: XmlElement, text: string): void {
    const last = parent.children.at(-1)
    if (last) last.tail += text
    else parent.text += text
  }

  #attributes(text: string): Record<string, string> {
    const attributes: Record<string, string> = {}
    for (const [, name, double, single] of text.matchAll(ATTRIBUTE)) {
      if (Object.hasOwn(attributes, name!)) throw new XmlError(`duplicate attribute ${name} at ${place(this.#source, this.#at)}`)
      attributes[this.#name(name!)] = this.#decode((double ?? single ?? '').replace(/[\t\n]/g, ' '))
    }
    return attributes
  }

  #decode(text: string): string {
    if (text.includes(']]>')) throw new XmlError(`"]]>" in text at ${place(this.#source, this.#at)}`)
    return text.replace(/&([^;&\s]*;)?/g, (whole, body?: string) => {
      const numeric = /^#(?:x([\da-fA-F]+)|(\d+));$/.exec(body ?? '')
      const code = numeric ? Number.parseInt(numeric[1] ?? numeric[2]!, numeric[1] ? 16 : 10) : Number.NaN
      if (code <= 0x10ffff && !FORBIDDEN.test(String.fromCodePoint(code))) return String.fromCodePoint(code)
      const name = (body ?? '').slice(0, -1)
      if (!Object.hasOwn(ENTITIES, name))
        throw new XmlError(`not well-formed: ${whole} before ${place(this.#source, this.#at)}; a bare & is written &amp;`)
      return ENTITIES[name]!
    })
  }
}

/** An element as XML again, the text behind it included. */
export function writeXml(element: XmlElement): string {
  const attributes = Object.entries(element.attributes).map(([name, value]) => ` ${name}="${escapeAttribute(value)}"`)
  const start = `<${element.tag}${attributes.join('')}`
  const inner = escapeText(element.text) + element.children.map(writeXml).join('')
  return `${inner === '' ? `${start} />` : `${start}>${inner}</${element.tag}>`}${escapeText(element.tail)}`
}

function escapeText(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
}

function escapeAttribute(text: string): string {
  return escapeText(text).replaceAll('"', '&quot;').replaceAll('\r', '&#13;').replaceAll('\n', '&#10;').replaceAll('\t', '&#09;')
}
