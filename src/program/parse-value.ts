// From a completion's text to a typed value. Lenient in reading (JSON with flaws, Python literals, "yes" for true), strict in the type.

import { type Constraints, type EnumType, type FieldType, type ModelField, type ModelType, typeName } from './field-type'
import { looseJson } from './loose-json'
import { literalEval, PyTuple } from './python-literal'
import { pyRepr, pyStr, strip } from './python-text'

/** A value that isn't of the type it should be. `path` leads to it, e.g. `items.0.qty`. */
export class TypeMismatch extends Error {
  override readonly name = 'TypeMismatch'
  readonly path: readonly string[]
  /** The value is none of a field's few choices (a literal or an enum), which DSPy checks before pydantic does. */
  readonly isChoice: boolean
  constructor(message: string, path: readonly string[] = [], isChoice = false) {
    super(path.length > 0 ? `${path.join('.')}: ${message}` : message)
    this.path = path
    this.isChoice = isChoice
  }
}

/** Reads a field's text. A value that is no text (XML's nested elements) is only checked. @throws TypeMismatch */
export function parseValue(value: unknown, type: FieldType): unknown {
  if (type.kind === 'str') return pyStr(value)
  if (type.kind === 'enum') return enumMember(value, type)
  if (type.kind === 'literal') return literalOption(value, type.values)
  if (typeof value !== 'string' || isOptionalText(type)) return validate(value, type)
  return validate(readText(value), type)
}

/** `str | None` and the like take the text as it is: "null" stays text. */
function isOptionalText(type: FieldType): boolean {
  if (type.kind !== 'union') return false
  const kinds = type.options.map((option) => option.kind)
  return kinds.includes('str') && kinds.includes('none')
}

function readText(text: string): unknown {
  const json = looseJson(text)
  if (json !== '' || text === '') return json
  const literal = literalEval(text)
  return literal === undefined ? text : literal
}

function enumMember(value: unknown, type: EnumType): unknown {
  const member = type.members.find((one) => one.value === value) ?? type.members.find((one) => one.name === value)
  if (member) return member.value
  throw new TypeMismatch(`${pyStr(value)} is not a valid name or value for the enum ${type.name}`, [], true)
}

function literalOption(value: unknown, options: readonly unknown[]): unknown {
  if (options.includes(value)) return value
  if (typeof value === 'string') {
    const wrapped = /^(?:Literal|str)\[([\s\S]*)\]$/.exec(strip(value))
    const bare = (wrapped ? wrapped[1]! : strip(value)).replace(/^(["'])([\s\S]*)\1$/, '$2')
    if (options.includes(bare)) return bare
  }
  const list = options.length === 1 ? `(${pyRepr(options[0])},)` : `(${options.map(pyRepr).join(', ')})`
  throw new TypeMismatch(`${pyRepr(value)} is not one of ${list}`, [], true)
}

/** Checks and converts a value as pydantic's lax mode does. @throws TypeMismatch */
export function validate(value: unknown, type: FieldType, path: readonly string[] = []): unknown {
  const fail = (message: string): never => {
    throw new TypeMismatch(`${message}, got ${pyRepr(value)}`, path)
  }
  switch (type.kind) {
    case 'any':
      return value
    case 'none':
      return value === null ? null : fail('Input should be None')
    case 'str':
      return typeof value === 'string' ? value : fail('Input should be a valid string')
    case 'int':
      return toInt(value) ?? fail('Input should be a valid integer')
    case 'float':
      return toFloat(value) ?? fail('Input should be a valid number')
    case 'bool':
      return toBool(value) ?? fail('Input should be a valid boolean')
    case 'list':
      if (!Array.isArray(value)) return fail('Input should be a valid list')
      return Array.from(value, (item, i) => (type.items ? validate(item, type.items, [...path, String(i)]) : item))
    case 'tuple':
      return validateTuple(value, type, path)
    case 'dict':
      if (!isDict(value)) return fail('Input should be a valid dictionary')
      return Object.fromEntries(Object.entries(value).map((pair) => validateEntry(pair, type, path)))
    case 'literal':
      return type.values.includes(value as never) ? value : fail(`Input should be one of ${type.values.map(pyRepr).join(', ')}`)
    case 'enum':
      return type.members.some((member) => member.value === value) ? value : fail(`Input should be a value of ${type.name}`)
    case 'union':
      return validateUnion(value, type.options, path)
    case 'model':
      return validateModel(value, type, path)
    case 'history':
      return isDict(value) && Array.isArray(value.messages) ? { messages: value.messages } : fail('Input should be a History')
  }
}

function isDict(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function toInt(value: unknown): number | undefined {
  if (typeof value === 'boolean') return Number(value)
  if (typeof value === 'number') return Number.isInteger(value) ? value : undefined
  if (typeof value !== 'string' || !/^[+-]?\d+(?:_\d+)*(?:\.0*)?$/.test(strip(value))) return undefined
  return Number(strip(value).replaceAll('_', ''))
}

function toFloat(value: unknown): number | undefined {
  if (typeof value === 'boolean' || typeof value === 'number') return Number(value)
  if (typeof value !== 'string') return undefined
  const text = strip(value).toLowerCase()
  const special = /^([+-]?)(inf|infinity|nan)$/.exec(text)
  if (special) return special[2] === 'nan' ? Number.NaN : special[1] === '-' ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY
  return /^[+-]?(?:\d+(?:_\d+)*\.?\d*|\.\d+)(?:e[+-]?\d+)?$/.test(text) ? Number(text.replaceAll('_', '')) : undefined
}

const TRUE_WORDS = new Set(['1', 'on', 't', 'true', 'y', 'yes'])
const FALSE_WORDS = new Set(['0', 'off', 'f', 'false', 'n', 'no'])

function toBool(value: unknown): boolean | undefined {
  if (typeof value === 'boolean') return value
  if (value === 0 || value === 1) return value === 1
  if (typeof value !== 'string') return undefined
  return TRUE_WORDS.has(value.toLowerCase()) ? true : FALSE_WORDS.has(value.toLowerCase()) ? false : undefined
}

function validateEntry(
  [key, item]: [string, unknown],
  type: Extract<FieldType, { kind: 'dict' }>,
  path: readonly string[],
): [string, unknown] {
  const name = type.key && type.key.kind !== 'str' ? String(validate(key, type.key, [...path, key])) : key
  return [name, type.value ? validate(item, type.value, [...path, key]) : item]
}

function validateTuple(value: unknown, type: Extract<FieldType, { kind: 'tuple' }>, path: readonly string[]): unknown {
  if (!Array.isArray(value)) throw new TypeMismatch(`Input should be a valid tuple, got ${pyRepr(value)}`, path)
  if (!type.items) return Array.from(value)
  if (!type.variadic && value.length !== type.items.length) {
    throw new TypeMismatch(`${typeName(type)} has ${type.items.length} items, got ${value.length}`, path)
  }
  return Array.from(value, (item, i) => validate(item, type.variadic ? type.items![0]! : type.items![i]!, [...path, String(i)]))
}

/** The option that the value is of already, else the first that it can be turned into. */
function validateUnion(value: unknown, options: readonly FieldType[], path: readonly string[]): unknown {
  const exact = options.find((option) => isExactly(value, option))
  if (exact) return validate(value, exact, path)
  const reasons: string[] = []
  for (const option of options) {
    try {
      return validate(value, option, path)
    } catch (error) {
      if (!(error instanceof TypeMismatch)) throw error
      reasons.push(`${typeName(option)} (${error.message})`)
    }
  }
  throw new TypeMismatch(`no option fits: ${reasons.join('; ')}`, path)
}

function isExactly(value: unknown, type: FieldType): boolean {
  switch (type.kind) {
    case 'any':
      return true
    case 'none':
      return value === null
    case 'str':
      return typeof value === 'string'
    case 'bool':
      return typeof value === 'boolean'
    case 'int':
      return typeof value === 'number' && Number.isInteger(value)
    case 'float':
      return typeof value === 'number'
    case 'list':
      return (
        Array.isArray(value) && !(value instanceof PyTuple) && value.every((item) => !type.items || isExactly(item, type.items))
      )
    case 'tuple':
      return value instanceof PyTuple && value.every((item, i) => !type.items?.[i] || isExactly(item, type.items[i]))
    case 'dict':
      return isDict(value) && Object.values(value).every((item) => !type.value || isExactly(item, type.value))
    case 'literal':
      return type.values.includes(value as never)
    case 'enum':
      return type.members.some((member) => member.value === value)
    case 'union':
      return type.options.some((option) => isExactly(value, option))
    case 'model':
      return (
        isDict(value) &&
        type.fields.every((field) => (field.name in value ? isExactly(value[field.name], field.type) : !field.required))
      )
    case 'history':
      return isDict(value) && 'messages' in value
  }
}

/** The model's own fields in their order, defaults filled in; other keys are dropped. */
function validateModel(value: unknown, type: ModelType, path: readonly string[]): unknown {
  if (!isDict(value))
    throw new TypeMismatch(`Input should be a valid dictionary or instance of ${type.name}, got ${pyRepr(value)}`, path)
  return Object.fromEntries(type.fields.map((field) => [field.name, validateField(value, field, path)]))
}

function validateField(model: Record<string, unknown>, field: ModelField, path: readonly string[]): unknown {
  const at = [...path, field.name]
  if (!Object.hasOwn(model, field.name)) {
    if (field.required) throw new TypeMismatch('Field required', at)
    return field.default ?? null
  }
  const value = validate(model[field.name], field.type, at)
  const broken = brokenLimit(value, field.constraints ?? {})
  if (broken) throw new TypeMismatch(`Input should be ${broken}, got ${pyRepr(value)}`, at)
  return value
}

function brokenLimit(value: unknown, limits: Constraints): string | null {
  if (typeof value === 'number') {
    if (limits.gt !== undefined && !(value > limits.gt)) return `greater than ${limits.gt}`
    if (limits.ge !== undefined && !(value >= limits.ge)) return `greater than or equal to ${limits.ge}`
    if (limits.lt !== undefined && !(value < limits.lt)) return `less than ${limits.lt}`
    if (limits.le !== undefined && !(value <= limits.le)) return `less than or equal to ${limits.le}`
    if (limits.multiple_of !== undefined && value % limits.multiple_of !== 0) return `a multiple of ${limits.multiple_of}`
  }
  const length = typeof value === 'string' ? [...value].length : Array.isArray(value) ? value.length : undefined
  if (length === undefined) return null
  if (limits.min_length !== undefined && length < limits.min_length) return `at least ${limits.min_length} long`
  return limits.max_length !== undefined && length > limits.max_length ? `at most ${limits.max_length} long` : null
}
