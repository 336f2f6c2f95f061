// Reads the Python expressions that occur in signature strings (types) and in completions (literals): a tokenizer, a parser, `ast.dump`.

export type PyNode =
  | { readonly node: 'Constant'; readonly value: unknown }
  | { readonly node: 'Name'; readonly id: string }
  | { readonly node: 'Attribute'; readonly value: PyNode; readonly attr: string }
  | { readonly node: 'Subscript'; readonly value: PyNode; readonly slice: PyNode }
  | { readonly node: 'Tuple' | 'List' | 'Set'; readonly elts: readonly PyNode[] }
  | { readonly node: 'Dict'; readonly keys: readonly PyNode[]; readonly values: readonly PyNode[] }
  | { readonly node: 'UnaryOp'; readonly op: string; readonly operand: PyNode }
  | { readonly node: 'BinOp'; readonly left: PyNode; readonly op: string; readonly right: PyNode }
  | {
      readonly node: 'Call'
      readonly func: PyNode
      readonly args: readonly PyNode[]
      readonly keywords: readonly [string, PyNode][]
    }

/** One parameter of `def f(...)`. */
export interface PyParameter {
  readonly name: string
  readonly annotation: PyNode | null
  readonly hasDefault: boolean
}

/** The text is no Python. */
export class PythonSyntaxError extends Error {
  override readonly name = 'PythonSyntaxError'
}

type Token = {
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
const CONSTANTS: Record<string, unknown> = { True: true, False: false, None: null }
const NUMBER = /(?:0[xX][\da-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d[\d_]*)?)/y
const NAME = /[\p{ID_Start}_][\p{ID_Continue}]*/uy
const BINARY: readonly Record<string, string>[] = [
  { '|': 'BitOr' },
  { '^': 'BitXor' },
  { '&': 'BitAnd' },
  { '<<': 'LShift', '>>': 'RShift' },
  { '+': 'Add', '-': 'Sub' },
  { '*': 'Mult', '/': 'Div', '//': 'FloorDiv', '%': 'Mod', '@': 'MatMult' },
]
const UNARY: Record<string, string> = { '-': 'USub', '+': 'UAdd', '~': 'Invert' }

/** Parses one expression; a bare `1, 2` is a tuple. */
export function parseExpression(text: string): PyNode {
  const parser = new Parser(text)
  const node = parser.tuple()
  parser.expectEnd()
  return node
}

/** Parses the inside of a parameter list, as between the parentheses of `def f(...)`. */
export function parseParameters(text: string): PyParameter[] {
  const parser = new Parser(text)
  const parameters = parser.parameters()
  parser.expectEnd()
  return parameters
}

class Parser {
  readonly #tokens: readonly Token[]
  #index = 0

  constructor(text: string) {
    this.#tokens = tokenize(text)
  }

  get #token(): Token {
    return this.#tokens[this.#index]!
  }

  #take(op: string): boolean {
    const found = this.#token.kind === 'op' && this.#token.text === op
    if (found) this.#index++
    return found
  }

  #expect(op: string): void {
    if (!this.#take(op)) this.#fail()
  }

  #fail(): never {
    const { kind, text, at } = this.#token
    throw new PythonSyntaxError(
      kind === 'end' ? 'the text ends too early' : `unexpected ${JSON.stringify(text)} at column ${at + 1}`,
    )
  }

  expectEnd(): void {
    if (this.#token.kind !== 'end') this.#fail()
  }

  parameters(): PyParameter[] {
    const parameters: PyParameter[] = []
    while (this.#token.kind !== 'end') {
      const token = this.#token
      if (token.kind !== 'name' || token.text in CONSTANTS) this.#fail()
      this.#index++
      const annotation = this.#take(':') ? this.#binary(0) : null
      const hasDefault = this.#take('=')
      if (hasDefault) this.#binary(0)
      else if (parameters.at(-1)?.hasDefault) throw new PythonSyntaxError('non-default argument follows default argument')
      parameters.push({ name: token.text, annotation, hasDefault })
      if (!this.#take(',')) break
    }
    return parameters
  }

  tuple(): PyNode {
    const first = this.#binary(0)
    if (!this.#take(',')) return first
    const elts = [first]
    while (this.#startsExpression()) {
      elts.push(this.#binary(0))
      if (!this.#take(',')) break
    }
    return { node: 'Tuple', elts }
  }

  #startsExpression(): boolean {
    const { kind, text } = this.#token
    return kind !== 'end' && (kind !== 'op' || ['(', '[', '{', '...'].includes(text) || text in UNARY)
  }

  #binary(level: number): PyNode {
    if (level === BINARY.length) return this.#unary()
    let left = this.#binary(level + 1)
    for (;;) {
      const op = this.#token.kind === 'op' ? BINARY[level]![this.#token.text] : undefined
      if (op === undefined) return left
      this.#index++
      left = { node: 'BinOp', left, op, right: this.#binary(level + 1) }
    }
  }

  #unary(): PyNode {
    const op = this.#token.kind === 'op' ? UNARY[this.#token.text] : undefined
    if (op === undefined) return this.#postfix()
    this.#index++
    return { node: 'UnaryOp', op, operand: this.#unary() }
  }

  #postfix(): PyNode {
    let node = this.#atom()
    for (;;) {
      if (this.#take('.')) {
        if (this.#token.kind !== 'name') this.#fail()
        node = { node: 'Attribute', value: node, attr: this.#token.text }
        this.#index++
      } else if (this.#take('[')) {
        const slice = this.tuple()
        this.#expect(']')
        node = { node: 'Subscript', value: node, slice }
      } else if (this.#take('(')) node = this.#call(node)
      else return node
    }
  }

  #call(func: PyNode): PyNode {
    const args: PyNode[] = []
    const keywords: [string, PyNode][] = []
    while (!this.#take(')')) {
      const next = this.#tokens[this.#index + 1]
      if (this.#token.kind === 'name' && next?.kind === 'op' && next.text === '=') {
        const name = this.#token.text
        this.#index += 2
        keywords.push([name, this.#binary(0)])
      } else args.push(this.#binary(0))
      if (!this.#take(',')) {
        this.#expect(')')
        break
      }
    }
    return { node: 'Call', func, args, keywords }
  }

  #atom(): PyNode {
    const token = this.#token
    if (token.kind === 'string') return this.#strings()
    if (token.kind === 'number') {
      this.#index++
      return { node: 'Constant', value: token.value }
    }
    if (token.kind === 'name') {
      this.#index++
      return token.text in CONSTANTS ? { node: 'Constant', value: CONSTANTS[token.text] } : { node: 'Name', id: token.text }
    }
    if (this.#take('(')) return this.#parenthesized()
    if (this.#take('[')) return { node: 'List', elts: this.#items(']') }
    if (this.#take('{')) return this.#braces()
    this.#fail()
  }

  /** Neighbouring string literals are one string. */
  #strings(): PyNode {
    let value = ''
    while (this.#token.kind === 'string') value += this.#tokens[this.#index++]!.value as string
    return { node: 'Constant', value }
  }

  #parenthesized(): PyNode {
    if (this.#take(')')) return { node: 'Tuple', elts: [] }
    const inner = this.tuple()
    this.#expect(')')
    return inner
  }

  #items(close: string): PyNode[] {
    const items: PyNode[] = []
    while (!this.#take(close)) {
      items.push(this.#binary(0))
      if (this.#take(',')) continue
      this.#expect(close)
      break
    }
    return items
  }

  #braces(): PyNode {
    if (this.#take('}')) return { node: 'Dict', keys: [], values: [] }
    const first = this.#binary(0)
    if (!this.#take(':')) {
      const rest = this.#take(',') ? this.#items('}') : (this.#expect('}'), [])
      return { node: 'Set', elts: [first, ...rest] }
    }
    const keys = [first]
    const values = [this.#binary(0)]
    while (this.#take(',') && !(this.#token.kind === 'op' && this.#token.text === '}')) {
      keys.push(this.#binary(0))
      this.#expect(':')
      values.push(this.#binary(0))
    }
    this.#expect('}')
    return { node: 'Dict', keys, values }
  }
}

function tokenize(text: string): Token[] {
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
      return { kind: 'string', text: text.slice(at, i + quote.length), value: isRaw ? body : unescape(body), at }
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

function unescape(body: string): string {
  return body.replace(/\\(x[\da-fA-F]{2}|u[\da-fA-F]{4}|U[\da-fA-F]{8}|[0-7]{1,3}|[^])/g, (whole, code: string) => {
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
