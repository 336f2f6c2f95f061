// A field of a signature: its type, and what the prompt says about it.

import { type Constraints, type FieldType, typeName } from './field-type'
import type { ZodLike } from './infer-types'
import { pyStr } from './python-text'

export type FieldRole = 'input' | 'output'

export interface Field {
  readonly name: string
  readonly role: FieldRole
  readonly type: FieldType
  /** `${name}` when the author gave none; then prompts don't show it. */
  readonly desc: string
  /** Kept in the saved state, unused in prompts. */
  readonly prefix: string
  /** Limits in words, on a line of their own in the prompt. */
  readonly constraints?: string
  /** The value of a missing field; present even when it is null. */
  readonly default?: unknown
  readonly typeUndefined?: boolean
  /** Checks a parsed value further, for fields that came from zod. */
  readonly schema?: ZodLike
}

export interface FieldOptions extends Constraints {
  readonly desc?: string
  readonly prefix?: string
  readonly default?: unknown
  /** A Python type as text ('list[str]') or a zod schema; `str` without it. */
  readonly type?: string | ZodLike
}

/** A field that isn't part of a signature yet: it has no name. */
export interface FieldSpec extends FieldOptions {
  readonly role: FieldRole
}

/** Describes an input to add: `signature.prepend('hint', dspy.InputField({ desc: 'may help' }), 'list[str]')`. */
export function InputField<const O extends FieldOptions>(options?: O): O & { readonly role: 'input' } {
  return { ...(options as O), role: 'input' }
}

/** Describes an output to add. */
export function OutputField<const O extends FieldOptions>(options?: O): O & { readonly role: 'output' } {
  return { ...(options as O), role: 'output' }
}

const LIMITS: Record<string, string> = {
  gt: 'greater than: ',
  ge: 'greater than or equal to: ',
  lt: 'less than: ',
  le: 'less than or equal to: ',
  min_length: 'minimum length: ',
  max_length: 'maximum length: ',
  multiple_of: 'a multiple of the given number: ',
}

/** Numeric and length limits in the words of the prompt; undefined without limits. */
export function constraintText(options: object): string | undefined {
  const limits = Object.entries(options).flatMap(([key, value]) =>
    key in LIMITS && value !== undefined ? [LIMITS[key] + pyStr(value)] : [],
  )
  return limits.length > 0 ? limits.join(', ') : undefined
}

/** 'camelCaseText' → 'Camel Case Text', 'text2number' → 'Text 2 Number'; words in capitals stay. */
export function inferPrefix(name: string): string {
  const snake = name
    .replace(/(.)([A-Z][a-z]+)/gu, '$1_$2')
    .replace(/([a-z0-9])([A-Z])/g, '$1_$2')
    .replace(/([a-zA-Z])(\p{Nd})/gu, '$1_$2')
    .replace(/(\p{Nd})([a-zA-Z])/gu, '$1_$2')
  return snake
    .split('_')
    .map((word) => (isUpper(word) ? word : capitalize(word)))
    .join(' ')
}

function isUpper(word: string): boolean {
  return word === word.toUpperCase() && word !== word.toLowerCase()
}

function capitalize(word: string): string {
  const [first = '', ...rest] = word
  return first.toUpperCase() + rest.join('').toLowerCase()
}

/** The plain description of a field, as saved files and vectors hold it. */
export function describeField(field: Field): Record<string, unknown> {
  const { name, type, desc, prefix, constraints, typeUndefined } = field
  return {
    name,
    annotation: typeName(type),
    type,
    desc,
    prefix,
    ...(constraints === undefined ? {} : { constraints }),
    ...('default' in field ? { default: field.default } : {}),
    ...(typeUndefined ? { type_undefined: true } : {}),
  }
}
