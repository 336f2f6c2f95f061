// The outputs of a signature as OpenAI's structured outputs want them: one closed object schema in which every property is required.

import type { ResponseFormat } from './base-lm'
import { type FieldType, type JsonSchema, jsonSchema } from './field-type'
import type { Signature } from './signature'

/** Whether an output is a dictionary of any keys, which structured outputs don't allow. */
export function hasOpenMapping(signature: Signature): boolean {
  return signature.outputFields.some(({ type }) => type.kind === 'dict' && type.key !== undefined)
}

/** `response_format` for the outputs. */
export function responseSchema(signature: Signature): ResponseFormat {
  const name = 'DSPyProgramOutputs'
  const fields = signature.outputFields.map((field) => ({
    name: field.name,
    type: field.type,
    required: !('default' in field),
    ...('default' in field ? { default: field.default } : {}),
  }))
  const type: FieldType = { kind: 'model', name, fields }
  return { type: 'json_schema', json_schema: { name, strict: true, schema: closed(jsonSchema(type)) } }
}

/** Every object closed, and all its properties required, those in lists and definitions included. */
function closed(schema: JsonSchema): JsonSchema {
  const result: JsonSchema = { ...schema }
  if (schema.type === 'object') {
    const properties = (schema.properties ?? {}) as Record<string, JsonSchema>
    result.properties = mapValues(properties, closed)
    result.required = Object.keys(properties)
    result.additionalProperties = false
  }
  if (schema.type === 'array' && isSchema(schema.items)) result.items = closed(schema.items)
  if (isSchema(schema.$defs)) result.$defs = mapValues(schema.$defs as Record<string, JsonSchema>, closed)
  return result
}

function isSchema(value: unknown): value is JsonSchema {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function mapValues(record: Record<string, JsonSchema>, change: (value: JsonSchema) => JsonSchema): Record<string, JsonSchema> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, change(value)]))
}
