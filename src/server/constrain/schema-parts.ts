// JSON Schema's keywords: which are kept, which only tell, which we can't keep; references and schemas that add up, brought into one.

import { ArborError } from '../../errors'

export type Schema = boolean | Readonly<Record<string, unknown>>
export type ObjectSchema = Readonly<Record<string, unknown>>

/** @throws for a schema that is wrong or asks for what a grammar can't promise; `path` says where */
export class SchemaError extends ArborError {
  constructor(path: string, message: string) {
    super(`The JSON schema at ${path}: ${message}`, { code: 'invalid_json_schema' })
  }
}

/** Alternatives that hold at once are multiplied out. */
const MOST_BRANCHES = 1000

/** They say something about values that no text decides as it is written. */
const REFUSED = [
  'not',
  'if',
  'then',
  'else',
  'patternProperties',
  'dependentRequired',
  'dependentSchemas',
  'dependencies',
  'unevaluatedProperties',
  'unevaluatedItems',
  'contains',
  'minContains',
  'maxContains',
  'uniqueItems',
  'minProperties',
  'maxProperties',
  '$dynamicRef',
]

/** Keywords of ours; every other one is an annotation, as JSON Schema has it. */
const KEPT = [
  'type',
  'enum',
  'const',
  'anyOf',
  'properties',
  'required',
  'additionalProperties',
  'propertyNames',
  'items',
  'prefixItems',
  'minItems',
  'maxItems',
  'minLength',
  'maxLength',
  'pattern',
  'format',
  'minimum',
  'maximum',
  'exclusiveMinimum',
  'exclusiveMaximum',
  'multipleOf',
]

export const TYPES = ['object', 'array', 'string', 'number', 'integer', 'boolean', 'null'] as const
export type TypeName = (typeof TYPES)[number]

export function asSchema(value: unknown, path: string): Schema {
  if (typeof value === 'boolean') return value
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as ObjectSchema
  throw new SchemaError(path, `an object, true or false is needed, not ${JSON.stringify(value)}.`)
}

/**
 * A schema without $ref, allOf and oneOf: what they say stands beside the rest. oneOf becomes anyOf: a text that is written along one of its
 * branches may fit another one too.
 */
export function flattened(value: unknown, root: Schema, path: string): Schema {
  return flatten(asSchema(value, path), { root, path, trail: [] })
}

interface Where {
  readonly root: Schema
  readonly path: string
  /** References gone through, none twice. */
  readonly trail: readonly string[]
}

function flatten(schema: Schema, where: Where): Schema {
  if (typeof schema === 'boolean') return schema
  const { $ref, allOf, oneOf, nullable, ...rest } = schema
  const refused = REFUSED.find((keyword) => keyword in rest && !isIdle(keyword, rest[keyword]))
  if (refused !== undefined)
    throw new SchemaError(
      where.path,
      `"${refused}" can't be promised while a text is written. Leave it out and check it afterwards.`,
    )
  let flat: Schema = Object.fromEntries(Object.entries(rest).filter(([keyword]) => KEPT.includes(keyword)))
  if ($ref !== undefined) flat = both(flat, follow($ref, where), where.path)
  for (const [i, part] of list(allOf, 'allOf', where.path).entries())
    flat = both(flat, flatten(asSchema(part, `${where.path}/allOf/${i}`), where), where.path)
  if (oneOf !== undefined) flat = both(flat, { anyOf: list(oneOf, 'oneOf', where.path) }, where.path)
  return nullable === true ? { anyOf: [flat, { type: 'null' }] } : flat
}

/** Values with which a keyword says nothing. */
function isIdle(keyword: string, value: unknown): boolean {
  return (keyword === 'uniqueItems' && value === false) || (keyword === 'minProperties' && value === 0)
}

function follow(reference: unknown, where: Where): Schema {
  const { root, path, trail } = where
  if (typeof reference !== 'string' || !reference.startsWith('#'))
    throw new SchemaError(
      path,
      `$ref is ${JSON.stringify(reference)}; only references inside the schema ("#/$defs/…") can be followed.`,
    )
  if (trail.includes(reference)) throw new SchemaError(path, `${reference} refers to itself.`)
  return flatten(asSchema(pointed(root, reference, path), reference), { root, path: reference, trail: [...trail, reference] })
}

/** What a JSON pointer (RFC 6901) in a fragment points to. */
function pointed(root: Schema, reference: string, path: string): unknown {
  let at: unknown = root
  for (const part of reference.slice(1).split('/').slice(1)) {
    const key = decodeURIComponent(part).replaceAll('~1', '/').replaceAll('~0', '~')
    at = typeof at === 'object' && at !== null && Object.hasOwn(at, key) ? (at as Record<string, unknown>)[key] : undefined
  }
  if (at === undefined) throw new SchemaError(path, `${reference} points to nothing.`)
  return at
}

/** What holds where both do. */
export function both(a: Schema, b: Schema, path: string): Schema {
  if (a === false || b === false) return false
  if (a === true || b === true) return a === true ? b : a
  const joined: Record<string, unknown> = { ...a }
  for (const [keyword, value] of Object.entries(b))
    joined[keyword] = keyword in a ? joint(keyword, a[keyword], value, path) : value
  return joined
}

function joint(keyword: string, a: unknown, b: unknown, path: string): unknown {
  if (JSON.stringify(a) === JSON.stringify(b)) return a
  const larger = ['minimum', 'exclusiveMinimum', 'minLength', 'minItems']
  const smaller = ['maximum', 'exclusiveMaximum', 'maxLength', 'maxItems']
  if (larger.includes(keyword)) return Math.max(a as number, b as number)
  if (smaller.includes(keyword)) return Math.min(a as number, b as number)
  if (keyword === 'required') return [...new Set([...(a as unknown[]), ...(b as unknown[])])]
  if (keyword === 'type') return [a].flat().flatMap((type) => jointType(type as TypeName, [b].flat() as TypeName[]))
  if (keyword === 'enum') return (a as unknown[]).filter((one) => (b as unknown[]).some((other) => equal(one, other)))
  if (keyword === 'properties') return jointProperties(a as ObjectSchema, b as ObjectSchema)
  if (keyword === 'additionalProperties') return a === false || b === false ? false : { allOf: [a, b] }
  if (keyword === 'anyOf' && (a as Schema[]).length * (b as Schema[]).length > MOST_BRANCHES)
    throw new SchemaError(path, `its alternatives make more than ${MOST_BRANCHES} combinations.`)
  if (keyword === 'anyOf') return (a as Schema[]).flatMap((one) => (b as Schema[]).map((other) => ({ allOf: [one, other] })))
  throw new SchemaError(path, `two different values of "${keyword}" hold at once; that can't be put together.`)
}

function jointType(type: TypeName, others: readonly TypeName[]): TypeName[] {
  if (others.includes(type)) return [type]
  if (type === 'number' && others.includes('integer')) return ['integer']
  return type === 'integer' && others.includes('number') ? ['integer'] : []
}

function jointProperties(a: ObjectSchema, b: ObjectSchema): ObjectSchema {
  const joined: Record<string, unknown> = { ...a }
  for (const [name, schema] of Object.entries(b)) joined[name] = name in a ? { allOf: [a[name], schema] } : schema
  return joined
}

export function equal(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b)
}

export function list(value: unknown, keyword: string, path: string): readonly unknown[] {
  if (value === undefined) return []
  if (Array.isArray(value) && value.length > 0) return value
  throw new SchemaError(path, `"${keyword}" is ${JSON.stringify(value)}; a list with something in it is needed.`)
}

/** A count of a keyword: a whole number from 0 up. */
export function count(schema: ObjectSchema, keyword: string, missing: number, path: string): number {
  const value = schema[keyword]
  if (value === undefined) return missing
  if (typeof value === 'number' && Number.isInteger(value) && value >= 0) return value
  throw new SchemaError(path, `"${keyword}" is ${JSON.stringify(value)}; a whole number from 0 up is needed.`)
}
