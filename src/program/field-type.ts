// What a field may hold, in Python's type words, because prompts name Python types: their printed name and their JSON schema.

/** Limits on a number or a length, with pydantic's names. */
export interface Constraints {
  readonly gt?: number
  readonly ge?: number
  readonly lt?: number
  readonly le?: number
  readonly min_length?: number
  readonly max_length?: number
  readonly multiple_of?: number
}

export interface ModelField {
  readonly name: string
  readonly type: FieldType
  readonly required: boolean
  readonly default?: unknown
  readonly description?: string
  readonly constraints?: Constraints
}

export type LiteralValue = string | number | boolean | null

export type FieldType =
  | { readonly kind: 'str' | 'int' | 'float' | 'bool' | 'any' | 'none' | 'history' }
  | { readonly kind: 'list'; readonly items?: FieldType }
  | { readonly kind: 'dict'; readonly key?: FieldType; readonly value?: FieldType }
  | { readonly kind: 'tuple'; readonly items?: readonly FieldType[]; readonly variadic?: boolean }
  | { readonly kind: 'literal'; readonly values: readonly LiteralValue[] }
  | { readonly kind: 'union'; readonly options: readonly FieldType[]; readonly pep604?: boolean }
  | { readonly kind: 'enum'; readonly name: string; readonly members: readonly { name: string; value: LiteralValue }[] }
  | { readonly kind: 'model'; readonly name: string; readonly fields: readonly ModelField[] }

export type ModelType = Extract<FieldType, { kind: 'model' }>
export type EnumType = Extract<FieldType, { kind: 'enum' }>

/** A conversation so far: earlier inputs and outputs of the same signature, oldest first. */
export interface History {
  readonly messages: readonly Readonly<Record<string, unknown>>[]
}

const NAMES = { str: 'str', int: 'int', float: 'float', bool: 'bool', any: 'Any', none: 'NoneType', history: 'History' } as const

/** The name shown in prompts: `list[str]`, `Literal['a', 'b']`, `Union[int, NoneType]`, `Person`. */
export function typeName(type: FieldType): string {
  switch (type.kind) {
    case 'list':
      return type.items ? `list[${typeName(type.items)}]` : 'list'
    case 'dict':
      return type.key && type.value ? `dict[${typeName(type.key)}, ${typeName(type.value)}]` : 'dict'
    case 'tuple':
      return type.items ? `tuple[${[...type.items.map(typeName), ...(type.variadic ? ['Ellipsis'] : [])].join(', ')}]` : 'tuple'
    case 'literal':
      return `Literal[${type.values.map(literalName).join(', ')}]`
    case 'union':
      return `${type.pep604 ? 'UnionType' : 'Union'}[${type.options.map(typeName).join(', ')}]`
    case 'enum':
    case 'model':
      return type.name
    default:
      return NAMES[type.kind]
  }
}

function literalName(value: LiteralValue): string {
  if (typeof value === 'string') {
    if (!value.includes("'")) return `'${value}'`
    return value.includes('"') ? `'${value.replaceAll("'", "\\'")}'` : `"${value}"`
  }
  if (value === null) return 'None'
  return typeof value === 'boolean' ? (value ? 'True' : 'False') : String(value)
}

/** Nested unions are flattened and repeated options dropped, as `typing.Union` does; one option left is that option. */
export function unionOf(options: readonly FieldType[]): FieldType {
  const flat = options.flatMap((option) => (option.kind === 'union' ? option.options : [option]))
  const seen = new Map(flat.map((option) => [JSON.stringify(option), option]))
  const distinct = [...seen.values()]
  return distinct.length === 1 ? distinct[0]! : { kind: 'union', options: distinct }
}

/** Whether `None` is a value of the type. */
export function allowsNone(type: FieldType): boolean {
  return type.kind === 'none' || (type.kind === 'union' && type.options.some(allowsNone))
}

export type JsonSchema = { [key: string]: unknown }

/** pydantic's JSON schema, keys in pydantic's order; models and enums inside another type go to `$defs`. */
export function jsonSchema(type: FieldType): JsonSchema {
  const definitions: Record<string, JsonSchema> = {}
  const schema = type.kind === 'model' || type.kind === 'enum' ? definition(type, definitions) : schemaOf(type, definitions)
  return Object.keys(definitions).length > 0 ? { $defs: definitions, ...schema } : schema
}

/** The schema as prompts show it: `type` first, other keys sorted, at every level. */
export function promptSchema(type: FieldType): JsonSchema {
  return typeFirst(jsonSchema(type)) as JsonSchema
}

function typeFirst(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(typeFirst)
  if (typeof value !== 'object' || value === null) return value
  const rank = ([key]: [string, unknown]) => (key === 'type' ? '' : key)
  const sorted = Object.entries(value).sort((a, b) => (rank(a) < rank(b) ? -1 : 1))
  return Object.fromEntries(sorted.map(([key, item]) => [key, typeFirst(item)]))
}

function schemaOf(type: FieldType, definitions: Record<string, JsonSchema>): JsonSchema {
  switch (type.kind) {
    case 'str':
      return { type: 'string' }
    case 'int':
      return { type: 'integer' }
    case 'float':
      return { type: 'number' }
    case 'bool':
      return { type: 'boolean' }
    case 'none':
      return { type: 'null' }
    case 'any':
      return {}
    case 'history':
      return HISTORY_SCHEMA
    case 'list':
      return { type: 'array', items: type.items ? schemaOf(type.items, definitions) : {} }
    case 'dict':
      return {
        type: 'object',
        additionalProperties: type.value && type.value.kind !== 'any' ? schemaOf(type.value, definitions) : true,
      }
    case 'tuple':
      return tupleSchema(type, definitions)
    case 'literal':
      return literalSchema(type.values)
    case 'union':
      // pydantic names null last, wherever the author wrote None
      return { anyOf: [...type.options].sort((a, b) => rankOf(a) - rankOf(b)).map((option) => schemaOf(option, definitions)) }
    case 'enum':
    case 'model':
      if (!definitions[type.name]) {
        definitions[type.name] = {} // keeps a type that holds itself from going round for ever
        definitions[type.name] = definition(type, definitions)
      }
      return { $ref: `#/$defs/${type.name}` }
  }
}

function rankOf(option: FieldType): number {
  return option.kind === 'none' ? 1 : 0
}

function tupleSchema(type: Extract<FieldType, { kind: 'tuple' }>, definitions: Record<string, JsonSchema>): JsonSchema {
  if (!type.items) return { type: 'array', items: {} }
  if (type.variadic) return { type: 'array', items: schemaOf(type.items[0]!, definitions) }
  const items = type.items.map((item) => schemaOf(item, definitions))
  return { maxItems: items.length, minItems: items.length, prefixItems: items, type: 'array' }
}

function literalSchema(values: readonly LiteralValue[]): JsonSchema {
  const kinds = new Set(values.map((value) => (value === null ? 'null' : typeof value)))
  const name = { string: 'string', number: 'integer', boolean: 'boolean', null: 'null' }[[...kinds][0] as 'string']
  const named = kinds.size === 1 ? { type: name } : {}
  return values.length === 1 ? { const: values[0], ...named } : { enum: values, ...named }
}

function definition(type: ModelType | EnumType, definitions: Record<string, JsonSchema>): JsonSchema {
  if (type.kind === 'enum') return { ...literalSchema(type.members.map((member) => member.value)), title: type.name }
  const properties = type.fields.map((field) => [field.name, propertySchema(field, definitions)] as const)
  const required = type.fields.filter((field) => field.required).map((field) => field.name)
  return {
    properties: Object.fromEntries(properties),
    ...(required.length > 0 ? { required } : {}),
    title: type.name,
    type: 'object',
  }
}

const SCHEMA_LIMITS = {
  gt: 'exclusiveMinimum',
  ge: 'minimum',
  lt: 'exclusiveMaximum',
  le: 'maximum',
  multiple_of: 'multipleOf',
} as const

function propertySchema(field: ModelField, definitions: Record<string, JsonSchema>): JsonSchema {
  const limits: JsonSchema = {}
  for (const [key, value] of Object.entries(field.constraints ?? {})) {
    const length = field.type.kind === 'list' || field.type.kind === 'tuple' ? 'Items' : 'Length'
    if (key in SCHEMA_LIMITS) limits[SCHEMA_LIMITS[key as keyof typeof SCHEMA_LIMITS]] = value
    else limits[key === 'min_length' ? `min${length}` : `max${length}`] = value
  }
  const schema = schemaOf(field.type, definitions)
  return {
    ...schema,
    ...limits,
    ...(field.default === undefined ? {} : { default: field.default }),
    ...(field.description === undefined ? {} : { description: field.description }),
    ...(schema.$ref === undefined ? { title: propertyTitle(field.name) } : {}),
  }
}

function propertyTitle(name: string): string {
  return name.replaceAll('_', ' ').replace(/[A-Za-z]+/g, (word) => word[0]!.toUpperCase() + word.slice(1).toLowerCase())
}

const HISTORY_SCHEMA: JsonSchema = {
  additionalProperties: false,
  properties: { messages: { items: { additionalProperties: true, type: 'object' }, title: 'Messages', type: 'array' } },
  required: ['messages'],
  title: 'History',
  type: 'object',
}
