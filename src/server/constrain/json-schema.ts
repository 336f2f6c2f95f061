// A JSON schema as a grammar whose every text is JSON that the schema holds for. It promises no more than that: properties come in the schema's
// order, and none that it doesn't name unless it says so.

import { ArborError } from '../../errors'
import { call, either, type Fragment, Grammar, never, nothing, oneOfTexts, type Rule, repeated, sequence, text } from './grammar'
import { afterKey, type JsonRules, jsonRules, listOf, number, string } from './json-text'
import { numbersBetween } from './number-range'
import { objectOf, type Property } from './object-text'
import {
  asSchema,
  both,
  count,
  equal,
  flattened,
  list,
  type ObjectSchema,
  type Schema,
  SchemaError,
  TYPES,
  type TypeName,
} from './schema-parts'
import { patternText } from './string-pattern'

/** Any JSON object. */
export function jsonObjectGrammar(): Rule {
  const grammar = new Grammar()
  const { object } = jsonRules(grammar)
  grammar.finish(object)
  return object
}

/** @throws SchemaError */
export function jsonSchemaGrammar(schema: unknown): Rule {
  const grammar = new Grammar()
  const compiler = new Compiler(grammar, asSchema(schema, '#'))
  try {
    const root = grammar.rule('#', compiler.value(schema, '#'))
    grammar.finish(root)
    return root
  } catch (error) {
    if (error instanceof SchemaError || !(error instanceof ArborError)) throw error
    throw new SchemaError('#', error.message)
  }
}

class Compiler {
  readonly #rules: JsonRules
  readonly #referred = new Map<string, Rule>()
  #depth = 0

  constructor(
    private readonly grammar: Grammar,
    private readonly root: Schema,
  ) {
    this.#rules = jsonRules(grammar)
  }

  value(value: unknown, path: string): Fragment {
    const schema = asSchema(value, path)
    if (typeof schema === 'object' && typeof schema['$ref'] === 'string' && isPure(schema)) return this.#reference(schema['$ref'])
    if (++this.#depth > 200) throw new SchemaError(path, 'it is nested too deeply, or refers to itself without end.')
    try {
      return this.#flat(flattened(schema, this.root, path), path)
    } finally {
      this.#depth--
    }
  }

  /** A rule for each reference: so it may be recursive. */
  #reference(reference: string): Fragment {
    let rule = this.#referred.get(reference)
    if (!rule) {
      this.#referred.set(reference, (rule = this.grammar.declare(reference)))
      const flat = flattened({ $ref: reference }, this.root, reference)
      rule.start = this.#flat(flat, reference)(this.grammar, this.grammar.end)
    }
    return call(rule)
  }

  #flat(schema: Schema, path: string): Fragment {
    if (schema === false) return never
    if (schema === true) return call(this.#rules.value)
    const { anyOf, ...rest } = schema
    if (anyOf !== undefined) {
      const branches = list(anyOf, 'anyOf', path)
      if (Object.keys(rest).length === 0) return either(...branches.map((one, i) => this.value(one, `${path}/anyOf/${i}`)))
      return either(...branches.map((one, i) => this.#branch(rest, one, `${path}/anyOf/${i}`)))
    }
    if ('const' in rest) return this.#literals([rest['const']], rest, path)
    if ('enum' in rest) return this.#literals(list(rest['enum'], 'enum', path), rest, path)
    const types = typesOf(rest, path)
    if (types === null && Object.keys(rest).length === 0) return call(this.#rules.value)
    return either(...(types ?? TYPES).map((type) => this.#typed(type, rest, path)))
  }

  #branch(rest: ObjectSchema, branch: unknown, path: string): Fragment {
    const flat = both(rest, flattened(branch, this.root, path), path)
    return this.#flat(flat, path)
  }

  /** Values that are given one by one. */
  #literals(values: readonly unknown[], rest: ObjectSchema, path: string): Fragment {
    const types = typesOf(rest, path)
    const among = (value: unknown) => !('enum' in rest) || list(rest['enum'], 'enum', path).some((one) => equal(one, value))
    const fits = values.filter((value) => among(value) && (types === null || types.some((type) => isOfType(value, type))))
    return oneOfTexts(fits.map((value) => JSON.stringify(value)))
  }

  #typed(type: TypeName, schema: ObjectSchema, path: string): Fragment {
    switch (type) {
      case 'null':
        return text('null')
      case 'boolean':
        return either(text('true'), text('false'))
      case 'integer':
      case 'number':
        return numeric(type, schema, path)
      case 'string':
        return this.#string(schema, path)
      case 'array':
        return this.#array(schema, path)
      case 'object':
        return this.#object(schema, path)
    }
  }

  #string(schema: ObjectSchema, path: string): Fragment {
    const [least, most] = [count(schema, 'minLength', 0, path), count(schema, 'maxLength', Number.POSITIVE_INFINITY, path)]
    const pattern = patternText(schema, path)
    if (!pattern) return least > most ? never : string(this.#rules, least, most)
    if (least > 0 || most < Number.POSITIVE_INFINITY)
      throw new SchemaError(path, "a length and a pattern or format can't be promised at once; say the length in the pattern.")
    return pattern
  }

  #array(schema: ObjectSchema, path: string): Fragment {
    const first = schema['prefixItems'] === undefined ? [] : list(schema['prefixItems'], 'prefixItems', path)
    const fixed = first.map((item, i) => this.value(item, `${path}/prefixItems/${i}`))
    const further = schema['items'] ?? first.length === 0
    const item = this.#shared(further, `${path}/items`)
    const [least, most] = [count(schema, 'minItems', 0, path), count(schema, 'maxItems', Number.POSITIVE_INFINITY, path)]
    if (least > most) return never
    if (fixed.length === 0) return item ? listOf(item, this.#rules, least, most) : emptyList(least)
    const rest = item
      ? repeated(
          sequence(text(','), this.#rules.space, item),
          Math.max(0, least - fixed.length),
          Math.max(0, most - fixed.length),
        )
      : nothing
    if (most < fixed.length || (!item && least > fixed.length))
      throw new SchemaError(path, `minItems and maxItems don't go with ${fixed.length} prefixItems; all of them are written.`)
    const { space } = this.#rules
    const joined = fixed.flatMap((one, i) => (i === 0 ? [one] : [text(','), space, one]))
    return sequence(text('['), space, ...joined, rest, space, text(']'))
  }

  #object(schema: ObjectSchema, path: string): Fragment {
    const declared =
      schema['properties'] === undefined ? {} : (asSchema(schema['properties'], `${path}/properties`) as ObjectSchema)
    const required = schema['required'] === undefined ? [] : (schema['required'] as readonly unknown[])
    if (!Array.isArray(required) || required.some((name) => typeof name !== 'string'))
      throw new SchemaError(path, `"required" is ${JSON.stringify(required)}; a list of names is needed.`)
    const open = schema['additionalProperties']
    const more = open === undefined || open === false ? null : this.#shared(open, `${path}/additionalProperties`)
    const names = [...Object.keys(declared), ...required.filter((name: string) => !Object.hasOwn(declared, name))] as string[]
    const properties = names.map((name): Property => {
      const own = Object.hasOwn(declared, name) ? declared[name] : (open ?? true)
      const value = this.value(own, `${path}/properties/${name}`)
      return { name, text: sequence(text(JSON.stringify(name)), afterKey(value)), required: required.includes(name) }
    })
    if (properties.length === 0 && open === undefined && !('properties' in schema) && !('propertyNames' in schema))
      return call(this.#rules.object)
    return objectOf(properties, more && { value: more, key: this.#key(schema, path) }, this.#rules)
  }

  /** What a key that isn't declared looks like; null: any. */
  #key(schema: ObjectSchema, path: string): Fragment | null {
    if (schema['propertyNames'] === undefined) return null
    const names = flattened(schema['propertyNames'], this.root, `${path}/propertyNames`)
    if (names === true || (typeof names === 'object' && Object.keys(names).every((keyword) => keyword === 'type'))) return null
    return this.#flat(both(names, { type: 'string' }, path), `${path}/propertyNames`)
  }

  /** A value that stands in several places is a rule; null for one that there can't be. */
  #shared(schema: unknown, path: string): Fragment | null {
    if (schema === false) return null
    return call(this.grammar.rule(path, this.value(schema, path)))
  }
}

function emptyList(least: number): Fragment {
  return least > 0 ? never : text('[]')
}

function isPure(schema: ObjectSchema): boolean {
  return Object.keys(flatKeywords(schema)).length === 0
}

/** Keywords beside $ref that say something about the value. */
function flatKeywords(schema: ObjectSchema): ObjectSchema {
  const {
    $ref: _,
    $defs: _defs,
    definitions: _definitions,
    title: _title,
    description: _description,
    default: _default,
    ...rest
  } = schema
  return rest
}

function typesOf(schema: ObjectSchema, path: string): readonly TypeName[] | null {
  if (schema['type'] === undefined) return null
  const types = [schema['type']].flat()
  for (const type of types)
    if (!TYPES.includes(type as TypeName))
      throw new SchemaError(path, `"type" is ${JSON.stringify(type)}; one of ${TYPES.join(', ')} is needed.`)
  const named = types as TypeName[]
  return named.includes('number') ? named.filter((type) => type !== 'integer') : named
}

function isOfType(value: unknown, type: TypeName): boolean {
  if (value === null) return type === 'null'
  if (Array.isArray(value)) return type === 'array'
  if (type === 'integer') return Number.isInteger(value)
  return typeof value === type
}

function numeric(type: 'integer' | 'number', schema: ObjectSchema, path: string): Fragment {
  const numberOf = (keyword: string, missing: number) => {
    const value = schema[keyword] ?? missing
    if (typeof value === 'number') return value
    throw new SchemaError(path, `"${keyword}" is ${JSON.stringify(value)}; a number is needed.`)
  }
  const [min, max] = [numberOf('minimum', Number.NEGATIVE_INFINITY), numberOf('maximum', Number.POSITIVE_INFINITY)]
  const [over, under] = [
    numberOf('exclusiveMinimum', Number.NEGATIVE_INFINITY),
    numberOf('exclusiveMaximum', Number.POSITIVE_INFINITY),
  ]
  const decimals = decimalsOf(type, schema['multipleOf'], path)
  const free = [min, max, over, under].every((one) => Math.abs(one) === Number.POSITIVE_INFINITY)
  if (free && (schema['multipleOf'] === undefined || decimals === 0)) return number({ fraction: decimals > 0 })
  const range = { min: Math.max(min, over), max: Math.min(max, under), minOpen: over >= min, maxOpen: under <= max, decimals }
  return range.min > range.max ? never : numbersBetween(range)
}

/** Decimals a number may have: of the steps, powers of ten can be kept digit by digit. */
function decimalsOf(type: 'integer' | 'number', step: unknown, path: string): number {
  const usual = type === 'integer' ? 0 : 10
  if (step === undefined) return usual
  for (let decimals = 0; decimals <= usual; decimals++) if (Number(step) === 1 / 10 ** decimals) return decimals
  throw new SchemaError(path, `"multipleOf" is ${JSON.stringify(step)}; 1 and, for numbers, 0.1, 0.01 … can be promised.`)
}
