// The tokens of a Python expression: names, numbers, strings, operators.

/** The text is no Python. */
export class PythonSyntaxError extends Error {
  override readonly name = 'PythonSyntaxError'
}

export type Token = {
  readonly kind: 'name' | 'number' | 'string' | 'op' | 'end'
  readonly text: string
  readonly value?: unknown
  readonly at: number
}

const KEYWORDS = new Set(
  (
    'and as assert async await break class continue def del elif else except finally for from global if import in is lambda ' +
    'nonlocal not or pass raise return try while with yield'
  ).split(' '),
)
const NUMBER = /(?:0[xX][\da-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d[\d_]*)?)/y
const NAME = /[\p{ID_Start}_][\p{ID_Continue}]*/uy

/** Splits an expression into tokens; the last one is `end`. @throws PythonSyntaxError */
export function tokenize(text: string): Token[] {
  const tokens: Token[] = []
  let at = 0
  while (at < text.length) {
    if (/[ \t\f\r\n]/.test(text[at]!)) {
      at++
      continue
    }
    const token = stringToken(text, at) ?? numberToken(text, at) ?? nameToken(text, at) ?? opToken(text, at)
    tokens.push(token)
    at += token.text.length
  }
  tokens.push({ kind: 'end', text: '', at })
  return tokens
}

function stringToken(text: string, at: number): Token | null {
  const start = /(?:[rRuUbB]|[rR][bB]|[bB][rR])?('''|"""|'|")/y
  start.lastIndex = at
  const match = start.exec(text)
  if (!match) return null
  const quote = match[1]!
  const isRaw = /^[^'"]*r/i.test(match[0])
  let i = at + match[0].length
  let body = ''
  for (;;) {
    if (i >= text.length || (quote.length === 1 && text[i] === '\n')) throw new PythonSyntaxError('unterminated string literal')
    if (text.startsWith(quote, i))
      return { kind: 'string', text: text.slice(at, i + quote.length), value: isRaw ? body : unescapeText(body), at }
    const take = text[i] === '\\' ? 2 : 1
    body += text.slice(i, i + take)
    i += take
  }
}

const ESCAPES: Record<string, string> = {
  n: '\n',
  t: '\t',
  r: '\r',
  b: '\b',
  f: '\f',
  v: '\v',
  a: '\x07',
  '\n': '',
  '\\': '\\',
  "'": "'",
  '"': '"',
}

function unescapeText(body: string): string {
  return body.replace(/\\(x[\da-fA-F]{2}|u[\da-fA-F]{4}|U[\da-fA-F]{8}|[0-7]{1,3}|[\s\S])/g, (whole, code: string) => {
    if (/^[xuU]./.test(code)) return String.fromCodePoint(Number.parseInt(code.slice(1), 16))
    if (/^[0-7]/.test(code)) return String.fromCodePoint(Number.parseInt(code, 8))
    return ESCAPES[code] ?? whole
  })
}

function numberToken(text: string, at: number): Token | null {
  NUMBER.lastIndex = at
  const match = NUMBER.exec(text)
  if (!match) return null
  const digits = match[0].replaceAll('_', '')
  if (/[\p{ID_Continue}]/u.test(text[at + match[0].length] ?? ''))
    throw new PythonSyntaxError(`invalid decimal literal at column ${at + 1}`)
  if (/^0\d*[1-9]/.test(digits) && /^\d+$/.test(digits))
    throw new PythonSyntaxError('leading zeros in decimal integer literals are not permitted')
  return { kind: 'number', text: match[0], value: Number(digits), at }
}

function nameToken(text: string, at: number): Token | null {
  NAME.lastIndex = at
  const match = NAME.exec(text)
  if (!match) return null
  if (KEYWORDS.has(match[0])) throw new PythonSyntaxError(`${match[0]} is a Python keyword (column ${at + 1})`)
  return { kind: 'name', text: match[0], at }
}

function opToken(text: string, at: number): Token {
  const match = /\.\.\.|<<|>>|\/\/|[()[\]{},:.|=+\-*/%@&^~<>]/y
  match.lastIndex = at
  const found = match.exec(text)
  if (!found) throw new PythonSyntaxError(`unexpected ${JSON.stringify(text[at])} at column ${at + 1}`)
  return { kind: 'op', text: found[0], at }
}
