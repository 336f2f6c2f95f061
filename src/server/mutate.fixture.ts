// Bodies for tests: valid ones, made from a route's own zod schema, and what becomes of them when parts are taken out, swapped or spoilt.

import fc from 'fast-check'

type Json = Readonly<Record<string, unknown>>

/** Values for fields of a name, where chance would hardly find one that means something. */
export type Known = Readonly<Record<string, readonly unknown[]>>

/** Bodies that a JSON schema (of zod) allows, near enough. */
export function bodies(schema: Json, known: Known, depth = 0): fc.Arbitrary<unknown> {
  const inner = (one: unknown) => bodies(one as Json, known, depth + 1)
  const branches = (schema['anyOf'] ?? schema['oneOf']) as readonly Json[] | undefined
  if (branches) return fc.oneof(...branches.map(inner))
  if ('const' in schema) return fc.constant(schema['const'])
  if (schema['enum']) return fc.constantFrom(...(schema['enum'] as unknown[]))
  switch (depth > 6 ? 'deep' : [schema['type']].flat()[0]) {
    case 'object':
      return object(schema, known, inner)
    case 'array':
      return fc.array(inner(schema['items'] ?? {}), { minLength: Math.min(Number(schema['minItems'] ?? 0), 4), maxLength: 4 })
    case 'integer':
      return fc.integer({
        min: Math.max(Number(schema['minimum'] ?? -3), -3),
        max: Math.min(Number(schema['maximum'] ?? 12), 12),
      })
    case 'number':
      return fc.oneof(fc.constantFrom(0, 0.5, 1), fc.double({ min: 0, max: 3, noNaN: true }))
    case 'boolean':
      return fc.boolean()
    case 'null':
      return fc.constant(null)
    case 'string':
      return fc.oneof(fc.constantFrom('user', 'x', 'run-1', 'a {"b": 1}'), fc.string({ maxLength: 12 }))
    default:
      return fc.jsonValue({ maxDepth: 2 })
  }
}

function object(schema: Json, known: Known, inner: (schema: unknown) => fc.Arbitrary<unknown>): fc.Arbitrary<unknown> {
  const properties = (schema['properties'] ?? {}) as Record<string, Json>
  const fields = Object.entries(properties).map(([name, field]) => {
    const values = known[name]
    return [name, values ? fc.oneof({ weight: 5, arbitrary: fc.constantFrom(...values) }, inner(field)) : inner(field)] as const
  })
  if (fields.length === 0)
    return fc.dictionary(fc.string({ maxLength: 6 }), inner(schema['additionalProperties'] ?? {}), { maxKeys: 3 })
  const requiredKeys = (schema['required'] ?? []) as string[]
  return fc.record(Object.fromEntries(fields), { requiredKeys })
}

/** One change: where (any number; the places of a body are counted round) and what. */
export interface Mutation {
  readonly at: number
  readonly change: 'remove' | 'rename' | 'repeat' | 'wrap' | { readonly value: unknown }
}

export const mutations: fc.Arbitrary<Mutation> = fc.record({
  at: fc.nat(1000),
  change: fc.oneof(
    fc.constantFrom<Mutation['change']>('remove', 'rename', 'repeat', 'wrap'),
    fc.record({ value: fc.oneof(fc.constantFrom(...nasty()), fc.jsonValue({ maxDepth: 2 })) }),
  ),
})

function nasty(): unknown[] {
  const nested = (depth: number): unknown => Array.from({ length: depth }).reduce((value: unknown) => [value], 1)
  const numbers = [-1, 0, 0.5, 1e308, -1e308, 2 ** 31, 2 ** 53, -(2 ** 53), 1e-320]
  const texts = ['', 'x'.repeat(9999), '\ud800', '../../etc', '__proto__', '<script>', 'grpo:none', '\u0000', '{{ x }}']
  const schemas = [{ $ref: '#' }, { not: {} }, { type: 'string', maxLength: 1e9 }, { type: 'string', pattern: '(a*)*b' }]
  const formats = [...schemas, { type: 'array', items: { $ref: '#' } }].map((schema) => ({
    type: 'json_schema',
    json_schema: { schema },
  }))
  return [
    null,
    true,
    false,
    [],
    {},
    [[]],
    [{}],
    nested(60),
    JSON.parse('{"__proto__": {"x": 1}}'),
    ...numbers,
    ...texts,
    ...formats,
  ]
}

/** The body after the changes. */
export function mutated(body: unknown, changes: readonly Mutation[]): unknown {
  const root = { body: structuredClone(body) }
  for (const { at, change } of changes) {
    const places = placesOf(root)
    const place = places[at % places.length] // none once the whole body was taken out
    if (place) apply(place.holder, place.key, change)
  }
  return root.body
}

type Holder = Record<string, unknown> | unknown[]

function placesOf(value: unknown): { holder: Holder; key: string }[] {
  if (typeof value !== 'object' || value === null) return []
  return Object.keys(value).flatMap((key) => [{ holder: value as Holder, key }, ...placesOf((value as Json)[key])])
}

function apply(holder: Holder, key: string, change: Mutation['change']): void {
  const fields = holder as Record<string, unknown>
  const value = fields[key]
  if (typeof change === 'object') fields[key] = structuredClone(change.value)
  else if (change === 'wrap') fields[key] = [value]
  else if (change === 'repeat') fields[key] = Array.from({ length: 300 }, () => structuredClone(value))
  else if (Array.isArray(holder)) holder.splice(Number(key), 1)
  else {
    delete fields[key]
    if (change === 'rename' && key !== 'body') fields[`${key}_`] = value
  }
}

/** Spoils a text: what a broken connection or another program makes of it. */
export const spoilt: fc.Arbitrary<(text: string) => string> = fc.oneof(
  { weight: 6, arbitrary: fc.constant((text: string) => text) },
  fc.nat(400).map((at) => (text: string) => text.slice(0, at % (text.length + 1))),
  fc.tuple(fc.nat(400), fc.string({ maxLength: 3 })).map(([at, piece]) => (text: string) => {
    const place = at % (text.length + 1)
    return text.slice(0, place) + piece + text.slice(place + 1)
  }),
  fc.constant((text: string) => text.replace(/\d+/, 'NaN')),
  fc
    .constantFrom(100, 5000, 200_000)
    .map(
      (depth) => (text: string) =>
        text.replace(/[:,]/, (mark) => `${mark}${'['.repeat(depth)}${']'.repeat(depth)}${mark === ',' ? ',' : ''}`),
    ),
)
