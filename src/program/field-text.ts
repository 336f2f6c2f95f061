// How fields stand in prompts, whatever the adapter: their list, the placeholder of each, their values as text; and values read back.

import type { Field } from './field'
import { type FieldType, type ModelType, promptSchema, typeName } from './field-type'
import type { Loose } from './infer-types'
import { parseValue, TypeMismatch, validate } from './parse-value'
import { jsonDumps, PyFloat, pyStr, strip } from './python-text'
import type { Signature } from './signature'

/** A field under its header line `[[ ## name ## ]]`. */
export function headedField(field: Field, value: unknown): string {
  return `[[ ## ${field.name} ## ]]\n${formatValue(field, value)}`
}

/** The fields that are there, each under its header, between a prefix and the request for an answer. */
export function headedMessage(fields: readonly Field[], inputs: Loose, around: { prefix?: string; request?: string }): string {
  const present = fields.filter((field) => Object.hasOwn(inputs, field.name))
  const sections = present.map((field) => headedField(field, inputs[field.name]))
  return strip([around.prefix ?? '', ...sections, ...(around.request === undefined ? [] : [around.request]), ''].join('\n\n'))
}

/** The numbered lists of input and output fields with types and descriptions. */
export function describeSignature(signature: Signature): string {
  return `Your input fields are:\n${describeFields(signature.inputFields)}\nYour output fields are:\n${describeFields(signature.outputFields)}`
}

/** A numbered list of fields with types and descriptions. */
export function describeFields(fields: readonly Field[]): string {
  const lines = fields.map((field, i) => {
    const desc = field.desc === `\${${field.name}}` ? '' : field.desc
    const limits = field.constraints ? `\nConstraints: ${field.constraints}` : ''
    return `${i + 1}. \`${field.name}\` (${typeName(field.type)}): ${desc}${limits}`
  })
  return strip(lines.join('\n'))
}

/** `{name}`, and for typed outputs a note on what to write. */
export function fieldPlaceholder(field: Field): string {
  const note = typeNote(field)
  return `{${field.name}}${note === '' ? '' : `        # note: the value you produce ${note}`}`
}

function typeNote({ role, type }: Field): string {
  if (role === 'input' || type.kind === 'str') return ''
  if (type.kind === 'bool') return 'must be True or False'
  if (type.kind === 'int' || type.kind === 'float') return `must be a single ${type.kind} value`
  if (type.kind === 'enum') return `must be one of: ${type.members.map((member) => pyStr(member.value)).join('; ')}`
  if (type.kind === 'literal') return `must exactly match (no extra characters) one of: ${type.values.map(pyStr).join('; ')}`
  return `must adhere to the JSON schema: ${jsonDumps(promptSchema(type))}`
}

/** A value as text: lists in a text field as «…» lines, other lists and objects as JSON, the rest as Python prints it. */
export function formatValue(field: Field, value: unknown): string {
  if (Array.isArray(value) && field.type.kind === 'str') return formatPassages(value)
  const shown = shownValue(value, field.type)
  return typeof shown === 'object' && shown !== null && !(shown instanceof PyFloat) ? jsonDumps(shown) : pyStr(shown)
}

/**
 * A value as Python would hold it after reading it as the type: models with their fields in order and defaults filled in, whole numbers
 * in a float's place as floats (`3.0`). What isn't of the type stays as it is: demos may be rough, and the prompt shows them so.
 */
export function shownValue(value: unknown, type: FieldType): unknown {
  if (value === null || value === undefined) return value
  switch (type.kind) {
    case 'float':
      return Number.isSafeInteger(value) ? new PyFloat(value as number) : value
    case 'union':
      return shownValue(value, unionOption(value, type.options))
    case 'list':
      return type.items && Array.isArray(value) ? value.map((item) => shownValue(item, type.items!)) : value
    case 'tuple':
      return type.items && Array.isArray(value)
        ? value.map((item, i) => shownValue(item, type.items![type.variadic ? 0 : i] ?? ANY))
        : value
    case 'dict':
      return type.value && isRecord(value) ? mapRecord(value, () => type.value!) : value
    case 'model':
      return isRecord(value) ? shownModel(value, type) : value
    default:
      return value
  }
}

const ANY: FieldType = { kind: 'any' }

/** The only option besides None, or the model that an object is likely to be; between other options a value stays as it is. */
function unionOption(value: unknown, options: readonly FieldType[]): FieldType {
  const real = options.filter((option) => option.kind !== 'none')
  return (real.length === 1 ? real[0] : isRecord(value) ? real.find((option) => option.kind === 'model') : undefined) ?? ANY
}

function shownModel(value: Loose, type: ModelType): unknown {
  try {
    const types = new Map(type.fields.map((field) => [field.name, field.type]))
    return mapRecord(validate(value, type) as Loose, (name) => types.get(name) ?? ANY)
  } catch (error) {
    if (error instanceof TypeMismatch) return value
    throw error
  }
}

function mapRecord(record: Loose, typeOf: (name: string) => FieldType): Loose {
  return Object.fromEntries(Object.entries(record).map(([name, item]) => [name, shownValue(item, typeOf(name))]))
}

function isRecord(value: unknown): value is Loose {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function formatPassages(passages: readonly unknown[]): string {
  if (passages.length === 0) return 'N/A'
  if (passages.length === 1) return formatPassage(pyStr(passages[0]))
  return passages.map((passage, i) => `[${i + 1}] ${formatPassage(pyStr(passage))}`).join('\n')
}

function formatPassage(text: string): string {
  return /[\n«»]/.test(text) ? `«««\n    ${text.replaceAll('\n', '\n    ')}\n»»»` : `«${text}»`
}

// ---------------------------------------------------------------- reading

interface Checkable {
  safeParse(value: unknown): { readonly success: boolean; readonly data?: unknown; readonly error?: { readonly message: string } }
}

/** Reads a field's value, then asks the field's own zod schema, for which an optional part is absent, not null. @throws TypeMismatch */
export function parseField(field: Field, value: unknown): unknown {
  const parsed = parseValue(value, field.type)
  if (!field.schema) return parsed
  const schema = field.schema as unknown as Checkable
  const strict = schema.safeParse(parsed)
  const checked = strict.success ? strict : schema.safeParse(withoutNulls(parsed))
  if (!checked.success) throw new TypeMismatch(checked.error?.message ?? 'the schema refuses the value')
  return checked.data
}

function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls)
  if (typeof value !== 'object' || value === null) return value ?? undefined
  const entries = Object.entries(value).filter(([, item]) => item !== null)
  return Object.fromEntries(entries.map(([key, item]) => [key, withoutNulls(item)]))
}
