// DSPy's default format: every field under a header line `[[ ## name ## ]]`.

import { Adapter, type AdapterCall, type AdapterRequest, type ParseResult, type UserMessageOptions } from './adapter'
import { currentSettings } from './context'
import type { Field } from './field'
import { fieldPlaceholder, headedMessage, parseField } from './field-text'
import { typeName } from './field-type'
import type { Loose } from './infer-types'
import { JSONAdapter } from './json-adapter'
import { TypeMismatch } from './parse-value'
import { splitLines, strip } from './python-text'
import type { Signature } from './signature'

const HEADER = /^\[\[ ## ([\p{L}\p{N}_]+) ## \]\]/u
const INTRODUCTION = 'All interactions will be structured in the following way, with the appropriate values filled in.'

export interface ChatAdapterOptions {
  /**
   * The adapter that is asked when a completion can't be read: a second call of the LM. A JSONAdapter unless given; null for none.
   * The error of the second call is the one that is thrown.
   */
  readonly fallback?: Adapter | null
}

/**
 * Fields under headers `[[ ## name ## ]]`, in prompts and answers.
 * @example dspy.configure({ adapter: new dspy.ChatAdapter({ fallback: null }) }) // never asks again in JSON
 */
export class ChatAdapter extends Adapter {
  readonly fallback: Adapter | null

  constructor(options: ChatAdapterOptions = {}) {
    super()
    this.fallback = options.fallback === undefined ? new JSONAdapter() : options.fallback
  }

  override async call(request: AdapterRequest): Promise<AdapterCall> {
    const { fallback } = this
    const own = () => super.call(request)
    return fallback && currentSettings().adapterFallback ? this.firstReadable(request, own, () => fallback.call(request)) : own()
  }

  override formatFieldStructure(signature: Signature): string {
    const section = (fields: readonly Field[]) => this.formatFields(fields, fieldPlaceholder)
    return strip(
      [INTRODUCTION, section(signature.inputFields), section(signature.outputFields), '[[ ## completed ## ]]\n'].join('\n\n'),
    )
  }

  override formatUserMessage(signature: Signature, inputs: Loose, options: UserMessageOptions = {}): string {
    const request = options.isRequest ? this.outputRequirements(signature) : undefined
    return headedMessage(signature.inputFields, inputs, { prefix: options.prefix, request })
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

  override tryParse(signature: Signature, completion: string): ParseResult {
    const found: Loose = {}
    for (const { name, text } of readSections(completion)) {
      const field = signature.outputFields.find((output) => output.name === name)
      if (!field || Object.hasOwn(found, field.name)) continue // an unknown header, or not the first of its name
      try {
        found[field.name] = parseField(field, text)
      } catch (error) {
        if (!(error instanceof TypeMismatch)) throw error
        return this.fieldFailure(signature, completion, { name: field.name, value: text, error })
      }
    }
    return this.complete(signature, completion, found)
  }
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
