// DSPy's default format: every field under a header line `[[ ## name ## ]]`.

import { Adapter, type AdapterCall, type AdapterRequest, modelValue, type ParseResult, type UserMessageOptions } from './adapter'
import type { Field } from './field'
import { promptSchema, typeName } from './field-type'
import type { Loose } from './infer-types'
import { parseValue, TypeMismatch } from './parse-value'
import { jsonDumps, pyStr, splitLines, strip } from './python-text'
import type { Signature } from './signature'

const HEADER = /^\[\[ ## ([\p{L}\p{N}_]+) ## \]\]/u
const INTRODUCTION = 'All interactions will be structured in the following way, with the appropriate values filled in.'

export interface ChatAdapterOptions {
  /** The adapter that is asked when a completion can't be read: a second call of the LM. Off unless given. */
  readonly fallback?: Adapter | null
}

export class ChatAdapter extends Adapter {
  readonly fallback: Adapter | null

  constructor(options: ChatAdapterOptions = {}) {
    super()
    this.fallback = options.fallback ?? null
  }

  override async call(request: AdapterRequest): Promise<AdapterCall> {
    const call = await super.call(request)
    const failed = call.results.some((result) => result.issues)
    return failed && this.fallback ? this.fallback.call(request) : call
  }

  override formatFieldDescription(signature: Signature): string {
    return `Your input fields are:\n${describeFields(signature.inputFields)}\nYour output fields are:\n${describeFields(signature.outputFields)}`
  }

  override formatFieldStructure(signature: Signature): string {
    const section = (fields: readonly Field[]) => this.formatFields(fields, (field) => fieldPlaceholder(field))
    return strip(
      [INTRODUCTION, section(signature.inputFields), section(signature.outputFields), '[[ ## completed ## ]]\n'].join('\n\n'),
    )
  }

  override formatUserMessage(signature: Signature, inputs: Loose, options: UserMessageOptions = {}): string {
    const present = signature.inputFields.filter((field) => Object.hasOwn(inputs, field.name))
    const sections = present.map((field) => header(field.name, formatValue(field, inputs[field.name])))
    const request = options.isRequest ? [this.outputRequirements(signature)] : []
    return strip([options.prefix ?? '', ...sections, ...request, ''].join('\n\n'))
  }

  override formatAssistantMessage(signature: Signature, outputs: Loose, missing?: string): string {
    const value = (field: Field) => (Object.hasOwn(outputs, field.name) ? outputs[field.name] : (missing ?? null))
    return `${this.formatFields(signature.outputFields, value)}\n\n[[ ## completed ## ]]\n`
  }

  /** The last words of a request: which fields to answer, in which order. */
  protected outputRequirements(signature: Signature): string {
    const fields = signature.outputFields.map((field) => {
      const type = field.type.kind === 'str' ? '' : ` (must be formatted as a valid Python ${typeName(field.type)})`
      return `\`[[ ## ${field.name} ## ]]\`${type}`
    })
    return `Respond with the corresponding output fields, starting with the field ${fields.join(', then ')}, and then ending with the marker for \`[[ ## completed ## ]]\`.`
  }

  /** Fields with their values, as this adapter writes them. */
  formatFields(fields: readonly Field[], value: (field: Field) => unknown): string {
    return strip(fields.map((field) => header(field.name, formatValue(field, value(field)))).join('\n\n'))
  }

  override tryParse(signature: Signature, completion: string): ParseResult {
    const found: Loose = {}
    for (const { name, text } of readSections(completion)) {
      const field = signature.outputFields.find((output) => output.name === name)
      if (!field || Object.hasOwn(found, field.name)) continue // an unknown header, or not the first of its name
      try {
        found[field.name] = parseField(field, text)
      } catch (error) {
        if (!(error instanceof TypeMismatch)) throw error
        const message = `Failed to parse field ${field.name} with value ${text} from the LM response. Error message: ${error.message}`
        return this.failure(signature, completion, { issues: [{ field: field.name, message }] })
      }
    }
    return this.complete(signature, completion, found)
  }
}

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

/**
 * The sections of a completion. A header counts at the start of a line, white space aside; what follows it on its line is text. As in
 * DSPy the header's length is cut from the line with its indentation, so an indented header leaves its last characters in the value.
 */
function readSections(completion: string): { name: string | null; text: string }[] {
  const sections: { name: string | null; lines: string[] }[] = [{ name: null, lines: [] }]
  for (const line of splitLines(completion)) {
    const match = HEADER.exec(strip(line))
    if (match) {
      const rest = strip(line.slice(match[0].length))
      sections.push({ name: match[1]!, lines: rest === '' ? [] : [rest] })
    } else sections.at(-1)!.lines.push(line)
  }
  return sections.map(({ name, lines }) => ({ name, text: strip(lines.join('\n')) }))
}

function header(name: string, text: string): string {
  return `[[ ## ${name} ## ]]\n${text}`
}

/** The numbered list of fields with types and descriptions. */
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
  const shown = modelValue(value, field.type)
  return typeof shown === 'object' && shown !== null ? jsonDumps(shown) : pyStr(shown)
}

function formatPassages(passages: readonly unknown[]): string {
  if (passages.length === 0) return 'N/A'
  if (passages.length === 1) return formatPassage(pyStr(passages[0]))
  return passages.map((passage, i) => `[${i + 1}] ${formatPassage(pyStr(passage))}`).join('\n')
}

function formatPassage(text: string): string {
  return /[\n«»]/.test(text) ? `«««\n    ${text.replaceAll('\n', '\n    ')}\n»»»` : `«${text}»`
}
