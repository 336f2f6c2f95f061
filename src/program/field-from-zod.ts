// A zod schema as a field type. Parsed values are checked by the schema itself as well, so no limit is lost on the way.

import { inferPrefix } from './field'
import type { Constraints, FieldType, LiteralValue, ModelField } from './field-type'
import { unionOf } from './field-type'
import type { ZodLike } from './infer-types'
import { SignatureError } from './signature-text'

/** What is read from a zod schema's definition; only the members of its own `type` are there. */
interface ZodDefinition {
  readonly type: string
  readonly format?: string
  readonly checks?: readonly { readonly _zod: { readonly def: ZodCheck } }[]
  readonly element?: ZodLike
  readonly shape?: Readonly<Record<string, ZodLike>>
  readonly innerType?: ZodLike
  readonly in?: ZodLike
  readonly defaultValue?: unknown
  readonly entries?: Readonly<Record<string, string | number>>
  readonly values?: readonly LiteralValue[]
  readonly options?: readonly ZodLike[]
  readonly items?: readonly ZodLike[]
  readonly keyType?: ZodLike
  readonly valueType?: ZodLike
}

interface ZodCheck {
  readonly check: string
  readonly format?: string
  readonly value?: number
  readonly inclusive?: boolean
  readonly minimum?: number
  readonly maximum?: number
}

export interface ZodField {
  readonly type: FieldType
  readonly description?: string
  /** Of `.meta({ prefix })`. */
  readonly prefix?: string
  readonly default?: unknown
  readonly constraints: Constraints
}

/** Whether a value is a zod schema. */
export function isZod(value: unknown): value is ZodLike {
  return typeof value === 'object' && value !== null && '_zod' in value
}

/** Reads type, description, prefix, default and limits. `name` names an object that has no `title` of its own. */
export function fieldFromZod(schema: ZodLike, name: string): ZodField {
  const def = definitionOf(schema)
  const meta = metaOf(schema)
  const said = {
    ...(meta.description === undefined ? {} : { description: meta.description }),
    ...(meta.prefix === undefined ? {} : { prefix: meta.prefix }),
  }
  if (def.type === 'default' || def.type === 'prefault') {
    return { ...fieldFromZod(def.innerType!, name), ...said, default: def.defaultValue }
  }
  if (def.type === 'optional') {
    const inner = fieldFromZod(def.innerType!, name)
    return { ...inner, ...said, type: unionOf([inner.type, { kind: 'none' }]), default: undefined }
  }
  return {
    type: typeFromZod(schema, inferPrefix(name).replaceAll(' ', '')),
    ...said,
    constraints: limitsOf(def),
  }
}

function definitionOf(schema: ZodLike): ZodDefinition {
  return schema._zod.def as ZodDefinition
}

interface ZodMeta {
  readonly title?: string
  readonly description?: string
  readonly prefix?: string
}

function metaOf(schema: ZodLike): ZodMeta {
  const withMeta = schema as { meta?: () => ZodMeta | undefined }
  return withMeta.meta?.() ?? {}
}

function typeFromZod(schema: ZodLike, name: string): FieldType {
  const def = definitionOf(schema)
  const inner = (part: ZodLike | undefined) => typeFromZod(part!, name)
  switch (def.type) {
    case 'string':
      return { kind: 'str' }
    case 'number':
      return { kind: isInteger(def) ? 'int' : 'float' }
    case 'boolean':
      return { kind: 'bool' }
    case 'null':
      return { kind: 'none' }
    case 'any':
    case 'unknown':
      return { kind: 'any' }
    case 'array':
      return { kind: 'list', items: inner(def.element) }
    case 'tuple':
      return { kind: 'tuple', items: def.items!.map(inner) }
    case 'record':
      return { kind: 'dict', key: inner(def.keyType), value: inner(def.valueType) }
    case 'literal':
      return { kind: 'literal', values: def.values! }
    case 'enum':
      return { kind: 'literal', values: Object.values(def.entries!) }
    case 'union':
      return unionOf(def.options!.map(inner))
    case 'nullable':
    case 'optional':
      return unionOf([inner(def.innerType), { kind: 'none' }])
    case 'readonly':
    case 'default':
      return inner(def.innerType)
    case 'pipe':
      return inner(def.in)
    case 'object':
      return {
        kind: 'model',
        name: metaOf(schema).title ?? name,
        fields: Object.entries(def.shape!).map(([key, part]) => modelField(key, part)),
      }
  }
  throw new SignatureError(
    `z.${def.type}() in the field '${name}' has no Python type to show to the model. Use string, number, boolean, enum, literal, ` +
      'array, tuple, record, object, union, nullable or optional.',
    'signature_value',
  )
}

function modelField(name: string, schema: ZodLike): ModelField {
  const field = fieldFromZod(schema, name)
  return {
    name,
    type: field.type,
    required: !('default' in field),
    ...('default' in field ? { default: field.default } : {}),
    ...(field.description === undefined ? {} : { description: field.description }),
    ...(Object.keys(field.constraints).length > 0 ? { constraints: field.constraints } : {}),
  }
}

function isInteger(def: ZodDefinition): boolean {
  const formats = [def.format, ...(def.checks ?? []).map((check) => check._zod.def.format)]
  return formats.some((format) => format?.includes('int') ?? false)
}

function limitsOf(def: ZodDefinition): Constraints {
  const limits: Record<string, number> = {}
  for (const { _zod } of def.checks ?? []) {
    const { check, value, inclusive, minimum, maximum } = _zod.def
    if (check === 'greater_than' && value !== undefined) limits[inclusive ? 'ge' : 'gt'] = value
    if (check === 'less_than' && value !== undefined) limits[inclusive ? 'le' : 'lt'] = value
    if (check === 'multiple_of' && value !== undefined) limits.multiple_of = value
    if (check === 'min_length' && minimum !== undefined) limits.min_length = minimum
    if (check === 'max_length' && maximum !== undefined) limits.max_length = maximum
  }
  return limits
}
