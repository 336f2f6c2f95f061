import { Validator } from '@cfworker/json-schema'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { Automaton } from './automaton'
import { jsonObjectGrammar, jsonSchemaGrammar } from './json-schema'
import { seeded, takes, wander } from './walk.fixture'

const person = {
  type: 'object',
  properties: {
    name: { type: 'string', description: 'as people write it' },
    age: { type: 'integer', minimum: 0, maximum: 130 },
    'e-mail "home"': { type: ['string', 'null'], format: 'email' },
    tags: { type: 'array', items: { enum: ['a', 'b\n"c"', 7, null, { deep: [1] }] }, minItems: 1, maxItems: 3 },
  },
  required: ['name', 'age', 'tags'],
  additionalProperties: false,
}
const tree = {
  $ref: '#/$defs/node',
  $defs: {
    node: {
      type: 'object',
      properties: { value: { type: 'number' }, children: { type: 'array', items: { $ref: '#/$defs/node' } } },
      required: ['value', 'children'],
      additionalProperties: false,
    },
  },
}

const SCHEMAS: Record<string, object> = {
  person,
  tree,
  'any value': {},
  union: { anyOf: [person, { type: 'array', items: { type: 'boolean' } }, { type: 'null' }, { const: 'none' }] },
  'a union with something in common': {
    type: 'object',
    properties: { kind: { type: 'string' }, size: { type: 'integer' } },
    required: ['kind', 'size'],
    oneOf: [{ properties: { kind: { const: 'cat' } } }, { properties: { kind: { const: 'car' } }, required: ['wheels'] }],
  },
  'all of': {
    allOf: [
      { type: 'object', properties: { a: { type: 'integer' } } },
      { required: ['a', 'b'], properties: { b: { maximum: 3 } } },
    ],
  },
  'a dictionary': { type: 'object', additionalProperties: { type: 'integer' } },
  'a dictionary with names': {
    type: 'object',
    propertyNames: { pattern: '^[a-z]{2,4}$' },
    additionalProperties: { type: 'string', maxLength: 2 },
  },
  'declared properties and others': {
    type: 'object',
    properties: { id: { type: 'integer' }, idea: { type: 'null' }, '': { type: 'boolean' }, 'wörld"': { const: 1 } },
    required: ['idea'],
    additionalProperties: { type: 'string' },
  },
  'no properties': { type: 'object', properties: {}, additionalProperties: false },
  'a tuple': { type: 'array', prefixItems: [{ type: 'string' }, { type: 'integer' }], items: { type: 'boolean' }, maxItems: 4 },
  'lists in lists': {
    type: 'array',
    items: { type: 'array', items: { type: 'array', maxItems: 1 }, minItems: 2, maxItems: 2 },
    minItems: 1,
  },
  'an empty list': { type: 'array', maxItems: 0 },
  lengths: { type: 'string', minLength: 3, maxLength: 5 },
  pattern: { type: 'string', pattern: '^(ab|[^\\p{L}]{2})*"\\d+\\\\?$' },
  'a pattern anywhere': { type: 'string', pattern: 'x{2}|^y' },
  integers: { type: 'integer', minimum: -17, exclusiveMaximum: 205 },
  negative: { type: 'integer', minimum: -1200, maximum: -98 },
  decimals: { type: 'number', exclusiveMinimum: -0.25, maximum: 10.5 },
  'small decimals': { type: 'number', minimum: 0.001, exclusiveMaximum: 0.0125 },
  cents: { type: 'number', minimum: 0.99, maximum: 19.95, multipleOf: 0.01 },
  'bounded below': { type: 'number', minimum: 1e6 },
  'one number': { type: 'number', minimum: 4.25, maximum: 4.25 },
  nullable: { type: 'object', properties: { x: { type: 'string', enum: ['p', 'q'], nullable: true } }, required: ['x'] },
  ...Object.fromEntries(
    ['date', 'time', 'date-time', 'duration', 'email', 'hostname', 'ipv4', 'ipv6', 'uuid', 'uri'].map((format) => [
      format,
      { type: 'string', format },
    ]),
  ),
}

/** cfworker's rounding in multipleOf is its own; OpenAPI's nullable it doesn't know. */
const checked = (schema: object): object =>
  JSON.parse(
    JSON.stringify(schema, (key, value) => (key === 'multipleOf' ? undefined : value)),
    (_, value) => (value?.nullable === true ? { anyOf: [{ ...value, nullable: undefined }, { type: 'null' }] } : value),
  )

describe('a JSON schema as a grammar', () => {
  it.each(Object.entries(SCHEMAS))('%s: whatever is written along it is JSON that the schema holds for', (name, schema) => {
    const automaton = new Automaton(jsonSchemaGrammar(schema))
    const validator = new Validator(checked(schema), '2020-12')
    const random = seeded(1)
    const texts = new Set<string>()
    for (let i = 0; i < 30; i++) {
      const text = wander(automaton, random, i * 6)
      texts.add(text)
      const verdict = validator.validate(JSON.parse(text))
      expect([text, verdict.errors.map(({ error }) => error)]).toEqual([text, []])
    }
    if (!['no properties', 'an empty list', 'one number'].includes(name)) expect(texts.size).toBeGreaterThan(2)
  })

  it('takes what people and models write: compact, spaced and indented', () => {
    const value = { name: 'Zoë \u{1f600} "x"\\', age: 7, 'e-mail "home"': null, tags: ['a', 7, 'b\n"c"'] }
    const grammar = jsonSchemaGrammar(person)
    expect(takes(grammar, JSON.stringify(value))).toBe(true)
    expect(takes(grammar, JSON.stringify(value, null, 2))).toBe(true)
    expect(takes(grammar, JSON.stringify(value, null, '\t'))).toBe(true)
    expect(takes(grammar, JSON.stringify(value).replaceAll('":', '": ').replaceAll(',"', ', "'))).toBe(true)
    expect(takes(grammar, JSON.stringify({ ...value, 'e-mail "home"': undefined }))).toBe(true)
    for (const wrong of [{ age: 131 }, { age: -1 }, { age: 1.5 }, { tags: [] }, { tags: ['c'] }, { name: null }, { more: 1 }])
      expect([wrong, takes(grammar, JSON.stringify({ ...value, ...wrong }))]).toEqual([wrong, false])
    expect(takes(grammar, JSON.stringify(value).slice(0, -1))).toBe(false)
    expect(takes(grammar, `${JSON.stringify(value)} `)).toBe(false)
  })

  it('any JSON is a text of the schema without demands, as JavaScript writes it', () => {
    const grammar = jsonSchemaGrammar({})
    const short = (value: unknown): boolean =>
      typeof value === 'number'
        ? Math.abs(value) < 1e15 && /^-?\d+(\.\d{1,15})?$/.test(String(value)) && !Object.is(value, -0)
        : true
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 4 }), fc.constantFrom(undefined, 2), (value, indent) => {
        const plain = JSON.parse(JSON.stringify(value, (_, one) => (short(one) ? one : 1)))
        expect(takes(grammar, JSON.stringify(plain, null, indent))).toBe(true)
      }),
      { seed: 4, numRuns: 300 },
    )
  })

  it('an object of the caller is any object, and nothing else', () => {
    const grammar = jsonObjectGrammar()
    for (const text of ['{}', '{"a":{"b":[{}, -0.5e+10]}}', '{"a": "\\ud83d\\ude00\\n"}'])
      expect([text, takes(grammar, text)]).toEqual([text, true])
    for (const text of ['[]', '1', '"{}"', '{"a":01}', '{"a":1e999}', '{a:1}', '{"a":"\\ud83d"}', '{"a":"\n"}', '{"a":1,}', ''])
      expect([text, takes(grammar, text)]).toEqual([text, false])
  })

  it('numbers between bounds are taken exactly where they lie between them (random bounds)', () => {
    const number = fc.oneof(
      fc.integer({ min: -2000, max: 2000 }),
      fc.integer({ min: -20000, max: 20000 }).map((n) => n / 100),
    )
    fc.assert(
      fc.property(number, number, fc.boolean(), fc.boolean(), fc.array(number, { minLength: 5 }), (a, b, open, whole, values) => {
        const [low, high] = [Math.min(a, b), Math.max(a, b)]
        const bounds = open ? { exclusiveMinimum: low, exclusiveMaximum: high } : { minimum: low, maximum: high }
        const inside = (value: number) => (open ? low < value && value < high : low <= value && value <= high)
        const fits = (value: number) => inside(value) && (!whole || Number.isInteger(value))
        const schema = { type: whole ? 'integer' : 'number', ...bounds }
        let grammar: ReturnType<typeof jsonSchemaGrammar>
        try {
          grammar = jsonSchemaGrammar(schema)
        } catch {
          return // no number lies between them
        }
        for (const value of [...values, low, high, 0, (low + high) / 2].filter((one) => !Object.is(one, -0)))
          if (String(value).length < 12)
            expect([schema, value, takes(grammar, String(value))]).toEqual([schema, value, fits(value)])
      }),
      { seed: 9, numRuns: 300 },
    )
  })

  it('keeps schemas that zod makes', () => {
    const schema = z.object({
      id: z.uuid(),
      when: z.iso.datetime(),
      mail: z.email().optional(),
      kind: z.enum(['x', 'y']),
      point: z.tuple([z.number(), z.number()]),
      scores: z.record(z.string(), z.int().min(0)),
      shape: z.discriminatedUnion('type', [
        z.object({ type: z.literal('circle'), radius: z.number().positive() }),
        z.object({ type: z.literal('box'), sides: z.array(z.number()).length(2) }),
      ]),
      note: z.string().max(10).nullable().default(null),
    })
    const automaton = new Automaton(jsonSchemaGrammar(z.toJSONSchema(schema)))
    const random = seeded(3)
    for (let i = 0; i < 40; i++) expect(schema.safeParse(JSON.parse(wander(automaton, random, 20 * i))).error).toBeUndefined()
  })

  it.each([
    [{ type: 'object', properties: { a: { not: {} } } }, '#/properties/a: "not" can\'t be promised'],
    [{ type: 'text' }, '"type" is "text"; one of object'],
    [{ $ref: '#/$defs/none' }, 'points to nothing'],
    [{ $ref: 'https://example.com/x' }, 'only references inside the schema'],
    [{ $ref: '#/$defs/a', $defs: { a: { $ref: '#/$defs/a' } } }, 'refers to itself'],
    [{ $ref: '#/$defs/a', $defs: { a: { anyOf: [{ $ref: '#/$defs/a' }, { type: 'null' }] } } }, 'begins with itself'],
    [
      { $ref: '#/$defs/a', $defs: { a: { type: 'object', properties: { a: { $ref: '#/$defs/a' } }, required: ['a'] } } },
      'No finite text',
    ],
    [{ type: 'string', minLength: 5, maxLength: 4 }, 'No finite text'],
    [{ enum: [] }, '"enum" is []'],
    [false, 'No finite text'],
    [7, 'an object, true or false is needed, not 7'],
    [{ type: 'string', maxLength: 1e9 }, 'needs more than 200000 places'],
    [{ type: 'string', pattern: '(?=x)' }, "uses (?=x), which can't be promised"],
    [{ type: 'string', pattern: '(' }, "can't be read"],
    [{ type: 'number', multipleOf: 7 }, '"multipleOf" is 7'],
    [{ type: 'array', items: {}, uniqueItems: true }, '"uniqueItems" can\'t be promised'],
  ])("says what it can't keep: %j", (schema, message) => {
    expect(() => jsonSchemaGrammar(schema)).toThrow(message)
  })
})
