// Signature strings: 'question, docs: list[str] -> answer: bool', in Python's parameter and type syntax.

import { OptionError } from '../errors'
import { type FieldType, type LiteralValue, unionOf } from './field-type'
import { type PyNode, type PyParameter, parseExpression, parseParameters } from './python-expression'
import { dump } from './python-literal'
import { pyStr } from './python-text'
import { PythonSyntaxError } from './python-tokens'

/** A signature that can't be meant. `code` tells bad syntax, a wrong value and a forbidden field name apart. */
export class SignatureError extends OptionError {
  override readonly code: 'signature_syntax' | 'signature_value' | 'signature_name'
  constructor(message: string, code: SignatureError['code'], cause?: unknown) {
    super(message, { cause })
    this.code = code
  }
}

export interface ParsedField {
  readonly name: string
  readonly type: FieldType
  /** The string names no type; it counts as `str`. */
  readonly typeUndefined: boolean
}

/** Types that a string may name besides Python's own, e.g. `{ Person: personType }`. */
export type CustomTypes = Readonly<Record<string, FieldType>>

/** Splits at the one arrow and reads both sides. A name on both sides is an error. */
export function parseSignature(text: string, custom: CustomTypes = {}): { inputs: ParsedField[]; outputs: ParsedField[] } {
  const sides = text.split('->')
  if (sides.length !== 2) {
    throw new SignatureError(`Invalid signature format: '${text}', must contain exactly one '->'.`, 'signature_value')
  }
  const [inputs, outputs] = sides.map((side) => fieldsOf(side, text, custom)) as [ParsedField[], ParsedField[]]
  const twice = outputs.map((field) => field.name).filter((name) => inputs.some((input) => input.name === name))
  if (twice.length > 0) {
    throw new SignatureError(
      `Input and output fields must have distinct names, but found duplicates: '${[...new Set(twice)].sort().join(', ')}'.`,
      'signature_value',
    )
  }
  return { inputs, outputs }
}

function fieldsOf(side: string, whole: string, custom: CustomTypes): ParsedField[] {
  const fields = new Map<string, ParsedField>()
  for (const { name, annotation } of readOrExplain(() => parseParameters(side), whole) as PyParameter[]) {
    const type = annotation ? annotationType(annotation, custom) : ({ kind: 'str' } as const)
    fields.set(name, { name, type, typeUndefined: annotation === null })
  }
  return [...fields.values()]
}

function readOrExplain<T>(read: () => T, whole: string): T {
  try {
    return read()
  } catch (error) {
    if (!(error instanceof PythonSyntaxError)) throw error
    throw new SignatureError(
      `The signature '${whole}' can't be read: ${error.message}. Write it like 'question, docs: list[str] -> answer: bool'.`,
      'signature_syntax',
      error,
    )
  }
}

/** The type that a text like `list[str]` or `Optional[int]` names. */
export function parseType(text: string, custom: CustomTypes = {}): FieldType {
  return annotationType(
    readOrExplain(() => parseExpression(text), text),
    custom,
  )
}

function annotationType(node: PyNode, custom: CustomTypes): FieldType {
  if (node.node === 'Constant' && node.value === null) return { kind: 'str' } // DSPy reads a bare None as "no type"
  return typeOf(node, custom)
}

const SIMPLE: Record<string, FieldType> = {
  str: { kind: 'str' },
  int: { kind: 'int' },
  float: { kind: 'float' },
  bool: { kind: 'bool' },
  Any: { kind: 'any' },
  NoneType: { kind: 'none' },
  list: { kind: 'list' },
  dict: { kind: 'dict' },
  tuple: { kind: 'tuple' },
}

function typeOf(node: PyNode, custom: CustomTypes): FieldType {
  switch (node.node) {
    case 'Name': {
      const type = Object.hasOwn(custom, node.id) ? custom[node.id] : Object.hasOwn(SIMPLE, node.id) ? SIMPLE[node.id] : undefined
      if (type) return type
      if (['List', 'Dict', 'Tuple'].includes(node.id)) throw noType(`typing.${node.id}`, 'typing._SpecialGenericAlias')
      throw new SignatureError(`Unknown name: ${node.id}`, 'signature_value')
    }
    case 'Attribute':
      return attributeType(node, custom)
    case 'Subscript':
      return subscriptType(node.value, node.slice.node === 'Tuple' ? node.slice.elts : [node.slice], custom)
    case 'BinOp':
      if (node.op === 'BitOr') return unionOf([typeOf(node.left, custom), typeOf(node.right, custom)])
      break
    case 'Constant':
      if (node.value === null) return { kind: 'none' }
      throw noType(pyStr(node.value), { string: 'str', boolean: 'bool' }[typeof node.value as string] ?? 'int')
  }
  throw unhandled(node)
}

function noType(received: string, pythonClass: string): SignatureError {
  return new SignatureError(
    `Field types must be types, but received: ${received} of type <class '${pythonClass}'>.`,
    'signature_value',
  )
}

function unhandled(node: PyNode): SignatureError {
  return new SignatureError(
    `Failed to parse string-base Signature due to unhandled AST node type in annotation: ${dump(node)}. ` +
      'Please consider using class-based DSPy Signatures instead.',
    'signature_value',
  )
}

function attributeType(node: Extract<PyNode, { node: 'Attribute' }>, custom: CustomTypes): FieldType {
  const base = node.value.node === 'Name' ? node.value.id : ''
  const name = `${base}.${node.attr}`
  if (Object.hasOwn(custom, name)) return custom[name]!
  if (name === 'dspy.History') return { kind: 'history' }
  if (base === 'typing') return typeOf({ node: 'Name', id: node.attr }, custom)
  const message = base === 'dspy' ? `Unknown attribute: ${node.attr} on dspy` : `Unknown name: ${base || dump(node.value)}`
  throw new SignatureError(message, 'signature_value')
}

function subscriptType(base: PyNode, args: readonly PyNode[], custom: CustomTypes): FieldType {
  const name = base.node === 'Name' ? base.id : base.node === 'Attribute' ? base.attr : ''
  const types = () => args.map((arg) => typeOf(arg, custom))
  switch (name) {
    case 'list':
    case 'List':
      return { kind: 'list', items: exactly(1, types(), name)[0]! }
    case 'dict':
    case 'Dict': {
      const [key, value] = exactly(2, types(), name)
      return { kind: 'dict', key: key!, value: value! }
    }
    case 'tuple':
    case 'Tuple': {
      const isVariadic = args.length === 2 && args[1]!.node === 'Name' && args[1]!.id === '...'
      return isVariadic ? { kind: 'tuple', items: [typeOf(args[0]!, custom)], variadic: true } : { kind: 'tuple', items: types() }
    }
    case 'Optional':
      if (args.length !== 1) throw new SignatureError('Optional must have exactly one type argument', 'signature_value')
      return unionOf([typeOf(args[0]!, custom), { kind: 'none' }])
    case 'Union':
      return unionOf(types())
    case 'Literal':
      return { kind: 'literal', values: [...new Set(args.map(literalValue))] }
  }
  throw new SignatureError(`Unknown name: ${name || dump(base)}`, 'signature_value')
}

function exactly(count: number, types: FieldType[], name: string): FieldType[] {
  if (types.length === count) return types
  throw new SignatureError(
    `${name} takes ${count} type argument${count > 1 ? 's' : ''}, but got ${types.length}`,
    'signature_value',
  )
}

function literalValue(node: PyNode): LiteralValue {
  if (node.node === 'Constant') return node.value as LiteralValue
  throw unhandled(node)
}
