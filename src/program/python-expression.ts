// Reads the Python expressions that occur in signature strings (types) and in completions (literals).

import { PythonSyntaxError, type Token, tokenize } from './python-tokens'

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

const CONSTANTS: Record<string, unknown> = { True: true, False: false, None: null }
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
    if (this.#take('...')) return { node: 'Name', id: '...' }
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
      if (this.#take(',')) return { node: 'Set', elts: [first, ...this.#items('}')] }
      this.#expect('}')
      return { node: 'Set', elts: [first] }
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
