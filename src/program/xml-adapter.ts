// Every field in a tag of its own; lists, dictionaries and objects among the outputs as nested elements. Small models follow it best.

import type { ParseResult, UserMessageOptions } from './adapter'
import { ChatAdapter } from './chat-adapter'
import type { Field } from './field'
import { fieldPlaceholder, formatValue, parseField, shownValue } from './field-text'
import { type FieldType, type JsonSchema, jsonSchema } from './field-type'
import type { Loose } from './infer-types'
import { TypeMismatch, validate } from './parse-value'
import { PyFloat, pyRepr, pyStr, strip } from './python-text'
import type { Signature } from './signature'
import { parseXml, writeXml, type XmlElement, XmlError } from './xml-reader'

type Definitions = Readonly<Record<string, JsonSchema>>

/**
 * Fields in tags `<name>…</name>`: short, and easy for small models.
 * @example dspy.configure({ adapter: new dspy.XMLAdapter() })
 */
export class XMLAdapter extends ChatAdapter {
  override formatFieldStructure(signature: Signature): string {
    const structure = (field: Field) =>
      field.role === 'output' && isNested(field.type)
        ? structureOf(field)
        : this.formatFields([field], () => fieldPlaceholder(field))
    return [
      'All interactions will be structured in the following way, with the appropriate values filled in.',
      signature.inputFields.map(structure).join('\n\n'),
      signature.outputFields.map(structure).join('\n\n'),
    ].join('\n\n')
  }

  override formatUserMessage(signature: Signature, inputs: Loose, options: UserMessageOptions = {}): string {
    const present = signature.inputFields.filter((field) => Object.hasOwn(inputs, field.name))
    const fields = this.formatFields(present, (field) => inputs[field.name])
    const request = options.isRequest ? [this.outputRequirements(signature)] : []
    return strip([options.prefix ?? '', fields, ...request, ''].join('\n\n'))
  }

  override formatAssistantMessage(signature: Signature, outputs: Loose, missing?: string): string {
    return this.formatFields(signature.outputFields, (field) =>
      Object.hasOwn(outputs, field.name) ? outputs[field.name] : (missing ?? null),
    )
  }

  override formatFields(fields: readonly Field[], value: (field: Field) => unknown): string {
    return strip(fields.map((field) => formatElement(field, value(field))).join('\n\n'))
  }

  protected override outputRequirements(signature: Signature): string {
    const tags = signature.outputFields.map((field) => `\`<${field.name}>\``).join(', then ')
    const nested = signature.outputFields.filter((field) => isNested(field.type)).map(structureOf)
    const structure = nested.length > 0 ? ` Use this nested XML structure: ${nested.join(' ')}` : ''
    return `Respond with the corresponding output fields wrapped in XML tags ${tags}.${structure}`
  }

  override tryParse(signature: Signature, completion: string): ParseResult {
    const root = this.#readXml(completion)
    if (root instanceof XmlError) {
      return this.failure(signature, completion, { issues: [{ field: null, message: `Failed to parse XML: ${root.message}` }] })
    }
    const elements = groupChildren(root)
    const found: Loose = {}
    for (const field of signature.outputFields) {
      const own = elements.get(field.name)
      if (!own) continue
      const read = readElements(own, field)
      if (read.issue !== undefined)
        return this.failure(signature, completion, { issues: [{ field: field.name, message: read.issue }] })
      found[field.name] = read.value
    }
    return this.complete(signature, completion, found)
  }

  #readXml(completion: string): XmlElement | XmlError {
    try {
      return parseXml(`<dspy_root>${completion}</dspy_root>`)
    } catch (error) {
      if (error instanceof XmlError) return error
      throw error
    }
  }
}

// ---------------------------------------------------------------- writing

/** Lists, dictionaries and objects nest; so does an optional one. A bare `list` doesn't, and neither does a tuple. */
function isNested(type: FieldType): boolean {
  if (type.kind === 'union') {
    const real = type.options.filter((option) => option.kind !== 'none')
    return real.length === 1 && isNested(real[0]!)
  }
  return (
    (type.kind === 'list' && type.items !== undefined) ||
    (type.kind === 'dict' && type.key !== undefined) ||
    type.kind === 'model'
  )
}

function formatElement(field: Field, value: unknown): string {
  const shown = shownValue(value, field.type)
  if (field.role === 'output' && isNested(field.type) && typeof shown === 'object' && shown !== null)
    return valueToXml(shown, field.name)
  const text = formatValue(field, value)
  const safe = field.role === 'output' && field.type.kind === 'str' ? escapeXml(text) : text
  return `<${field.name}>\n${safe}\n</${field.name}>`
}

function escapeXml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
}

/** A key that is no tag name stands in `<entry key="…">`. */
function valueToXml(value: unknown, tag: string, key?: string): string {
  const open = key === undefined ? tag : `${tag} key=${quoteAttribute(key)}`
  if (value === null || value === undefined) return `<${open} />`
  if (Array.isArray(value)) {
    const items = value.map((item) => valueToXml(item, 'item')).join('')
    return items === '' ? `<${open} />` : `<${open}>${items}</${tag}>`
  }
  if (typeof value !== 'object' || value instanceof PyFloat) return `<${open}>${escapeXml(pyStr(value))}</${tag}>`
  const children = Object.entries(value).map(([name, child]) =>
    isTagName(name) ? valueToXml(child, name) : valueToXml(child, 'entry', name),
  )
  return `<${open}>${children.join('')}</${tag}>`
}

function isTagName(name: string): boolean {
  return /^[\p{ID_Start}_][\p{ID_Continue}.-]*$/u.test(name)
}

function quoteAttribute(text: string): string {
  const safe = escapeXml(text)
    .replaceAll('>', '&gt;')
    .replaceAll('\n', '&#10;')
    .replaceAll('\r', '&#13;')
    .replaceAll('\t', '&#9;')
  if (!safe.includes('"')) return `"${safe}"`
  return safe.includes("'") ? `"${safe.replaceAll('"', '&quot;')}"` : `'${safe}'`
}

/** The field as an empty form: `<people><item><name>...</name></item></people>`. */
function structureOf(field: Field): string {
  const schema = jsonSchema(field.type)
  return schemaToXml(field.name, schema, { definitions: (schema.$defs ?? {}) as Definitions, seen: [] })
}

function schemaToXml(tag: string, schema: JsonSchema, at: { definitions: Definitions; seen: readonly string[] }): string {
  if (typeof schema.$ref === 'string') {
    const name = schema.$ref.slice(schema.$ref.lastIndexOf('/') + 1)
    if (at.seen.includes(name)) return `<${tag}>...</${tag}>`
    return schemaToXml(tag, at.definitions[name]!, { ...at, seen: [...at.seen, name] })
  }
  if (Array.isArray(schema.anyOf)) {
    const choices = schema.anyOf as JsonSchema[]
    return schemaToXml(tag, choices.find((choice) => choice.type !== 'null') ?? choices[0]!, at)
  }
  if (schema.type === 'array') return `<${tag}>${schemaToXml('item', (schema.items ?? {}) as JsonSchema, at)}</${tag}>`
  const children = Object.entries((schema.properties ?? {}) as Record<string, JsonSchema>)
  const inner = children.map(([name, child]) => schemaToXml(name, child, at)).join('')
  return `<${tag}>${inner === '' ? '...' : inner}</${tag}>`
}

// ---------------------------------------------------------------- reading

/** Children by name; an `<entry key="…">` counts under its key. */
function groupChildren(element: XmlElement): Map<string, XmlElement[]> {
  const groups = new Map<string, XmlElement[]>()
  for (const child of element.children) {
    const name = child.tag === 'entry' ? (child.attributes.key ?? child.tag) : child.tag
    groups.set(name, [...(groups.get(name) ?? []), child])
  }
  return groups
}

/** Reads a field's elements by its type; where the type is a union, by each option in turn. */
function readElements(elements: readonly XmlElement[], field: Field): { value?: unknown; issue?: string } {
  const schema = jsonSchema(field.type)
  const definitions = (schema.$defs ?? {}) as Definitions
  let issue = ''
  for (const candidate of [schema, ...((schema.anyOf ?? []) as JsonSchema[])]) {
    const value = elementsToValue(elements, candidate, definitions)
    try {
      return { value: parseOrValidate(field, value) }
    } catch (error) {
      if (!(error instanceof TypeMismatch)) throw error
      issue = `Failed to parse field ${field.name} with value ${pyRepr(value)}: ${error.message}`
    }
  }
  return { issue }
}

/** Text that reads as another type (`1` in a `str | list[str]` field) may still be of the type as it stands. */
function parseOrValidate(field: Field, value: unknown): unknown {
  try {
    return parseField(field, value)
  } catch (error) {
    if (!(error instanceof TypeMismatch) || field.schema) throw error
    return validate(value, field.type)
  }
}

function elementsToValue(elements: readonly XmlElement[], given: JsonSchema, definitions: Definitions): unknown {
  const first = elements[0]!
  let schema = resolve(given, definitions)
  if (Array.isArray(schema.anyOf)) {
    const all = schema.anyOf as JsonSchema[]
    if (first.children.length === 0 && strip(first.text) === '' && all.some((choice) => choice.type === 'null')) return null
    const choices = all.filter((choice) => choice.type !== 'null')
    schema = (first.children.length > 0 ? choices.find((choice) => choice.type !== 'string') : undefined) ?? choices[0] ?? {}
  }
  if (schema.type === 'array') return arrayValue(elements, schema, definitions)
  if (schema.type === 'string' && first.children.length > 0) return first.text + first.children.map(writeXml).join('')
  const children = groupChildren(first)
  if (children.size === 0) {
    if (schema.type === 'object' && strip(first.text) === '') return {}
    const texts = elements.map((element) => strip(element.text))
    return texts.length === 1 ? texts[0] : texts
  }
  const properties = (schema.properties ?? {}) as Record<string, JsonSchema>
  const other = (typeof schema.additionalProperties === 'object' ? schema.additionalProperties : {}) as JsonSchema
  const entries = [...children].map(([name, items]) => [name, elementsToValue(items, properties[name] ?? other, definitions)])
  return Object.fromEntries(entries)
}

function resolve(schema: JsonSchema, definitions: Definitions): JsonSchema {
  const name = typeof schema.$ref === 'string' ? schema.$ref.slice(schema.$ref.lastIndexOf('/') + 1) : ''
  return Object.hasOwn(definitions, name) ? definitions[name]! : schema
}

/** `<item>` children, or the element itself again and again, or a JSON list as its text. */
function arrayValue(elements: readonly XmlElement[], schema: JsonSchema, definitions: Definitions): unknown {
  const only = elements.length === 1 ? elements[0]! : null
  if (only && only.children.length === 0) {
    const text = strip(only.text)
    if (text === '') return []
    if (text.startsWith('[')) return text
  }
  const items = (only && groupChildren(only).get('item')) || elements
  return items.map((item) => elementsToValue([item], (schema.items ?? {}) as JsonSchema, definitions))
}
