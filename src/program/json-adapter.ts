// Answers as one JSON object. Where the service can be told to answer in JSON, or by a schema, it is.

import { Adapter, type AdapterCall, type AdapterRequest, type ParseResult, type UserMessageOptions } from './adapter'
import type { ResponseFormat } from './base-lm'
import type { Field } from './field'
import { fieldPlaceholder, headedField, headedMessage, parseField, shownValue } from './field-text'
import { typeName } from './field-type'
import type { Loose } from './infer-types'
import { looseJson } from './loose-json'
import { TypeMismatch } from './parse-value'
import { jsonDumps, strip } from './python-text'
import { hasOpenMapping, responseSchema } from './response-schema'
import type { Signature } from './signature'

/**
 * Answers as one JSON object, asked for by `response_format` where the service takes it.
 * @example dspy.configure({ adapter: new dspy.JSONAdapter() })
 */
export class JSONAdapter extends Adapter {
  /**
   * One call, its answer bound to the outputs' schema where the service can do that, and a second one in plain JSON mode when that
   * fails. Without schemas, or with a dictionary of any keys among the outputs: one call in JSON mode. Without that: one call.
   */
  override async call(request: AdapterRequest): Promise<AdapterCall> {
    const { lm, signature } = request
    const callAs = (responseFormat: ResponseFormat) => super.call({ ...request, options: { ...request.options, responseFormat } })
    if (!lm.supportsResponseFormat) return super.call(request)
    const inJson = () => callAs({ type: 'json_object' })
    if (!lm.supportsResponseSchema || hasOpenMapping(signature)) return inJson()
    return this.firstReadable(request, async () => callAs(responseSchema(signature)), inJson)
  }

  override formatFieldStructure(signature: Signature): string {
    const inputs = signature.inputFields.map((field) => headedField(field, fieldPlaceholder(field))).join('\n\n')
    return strip(
      [
        'All interactions will be structured in the following way, with the appropriate values filled in.',
        'Inputs will have the following structure:',
        strip(inputs),
        'Outputs will be a JSON object with the following fields.',
        this.formatFields(signature.outputFields, fieldPlaceholder),
      ].join('\n\n'),
    )
  }

  override formatUserMessage(signature: Signature, inputs: Loose, options: UserMessageOptions = {}): string {
    const request = options.isRequest ? outputRequirements(signature) : undefined
    return headedMessage(signature.inputFields, inputs, { prefix: options.prefix, request })
  }

  override formatAssistantMessage(signature: Signature, outputs: Loose, missing?: string): string {
    return this.formatFields(signature.outputFields, ({ name }) =>
      Object.hasOwn(outputs, name) ? outputs[name] : (missing ?? null),
    )
  }

  override formatFields(fields: readonly Field[], value: (field: Field) => unknown): string {
    const entries = fields.map((field) => [field.name, shownValue(value(field), field.type)] as const)
    return jsonDumps(Object.fromEntries(entries), 2)
  }

  override tryParse(signature: Signature, completion: string): ParseResult {
    const { text, object } = findObject(completion)
    if (!object) {
      const message = 'LM response cannot be serialized to a JSON object.'
      return this.failure(signature, text, { issues: [{ field: null, message }] })
    }
    const found: Loose = {}
    for (const field of signature.outputFields) {
      if (!Object.hasOwn(object, field.name)) continue
      try {
        found[field.name] = parseField(field, object[field.name])
      } catch (error) {
        if (!(error instanceof TypeMismatch)) throw error
        return this.fieldFailure(signature, text, { name: field.name, value: object[field.name], error })
      }
    }
    return this.complete(signature, text, found)
  }
}

function outputRequirements(signature: Signature): string {
  const fields = signature.outputFields.map(({ name, type }) => {
    return `\`${name}\`${type.kind === 'str' ? '' : ` (must be formatted as a valid Python ${typeName(type)})`}`
  })
  return `Respond with a JSON object in the following order of fields: ${fields.join(', then ')}.`
}

/** The object that a text is, or else the first one in balanced braces; `text` is what was read. */
function findObject(completion: string): { text: string; object: Loose | null } {
  const whole = asObject(looseJson(completion))
  const braced = whole ? null : firstBraced(completion)
  if (braced === null) return { text: completion, object: whole }
  return { text: braced, object: asObject(looseJson(braced)) }
}

function asObject(value: unknown): Loose | null {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : null
}

/** The first `{…}` whose braces are balanced; braces inside quotes count like others. */
function firstBraced(text: string): string | null {
  const open: number[] = []
  let first: { start: number; end: number } | null = null
  for (let at = 0; at < text.length; at++) {
    if (text[at] === '{') open.push(at)
    if (text[at] !== '}') continue
    const start = open.pop()
    if (start !== undefined && (first === null || start < first.start)) first = { start, end: at + 1 }
    if (first && open.length === 0) break
  }
  return first && text.slice(first.start, first.end)
}
