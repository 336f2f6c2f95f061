// An adapter turns a signature, demos and inputs into messages, and a completion back into fields. The base: conversation and call.

import { AdapterParseError, LMError, OptionError } from '../errors'
import type { Message } from '../protocol'
import type { BaseLM, LMOptions, LMOutput } from './base-lm'
import { fieldsOf } from './example'
import type { Field } from './field'
import { describeSignature, headedField } from './field-text'
import { allowsNone } from './field-type'
import type { Loose } from './infer-types'
import type { TypeMismatch } from './parse-value'
import { dedent, pyStr, splitLines, strip } from './python-text'
import type { Signature } from './signature'
import type { TextListener } from './stream'

/** An input or output row in a prompt: an Example or plain data. */
export type Demo = object

/** Why a completion can't be read. `field` is null where no single field is to blame. */
export interface ParseIssue {
  readonly field: string | null
  readonly message: string
}

/** `fields`, or the issues with what could be read. */
export type ParseResult =
  | { readonly fields: Loose; readonly issues?: undefined }
  | {
      readonly fields?: undefined
      readonly issues: readonly ParseIssue[]
      readonly raw: string
      /** Fields that could be read; null when reading stopped at a bad one. */
      readonly partial: Loose | null
      readonly error: AdapterParseError
    }

export interface AdapterRequest {
  readonly lm: BaseLM
  readonly options: LMOptions
  readonly signature: Signature
  readonly demos: readonly Demo[]
  readonly inputs: Loose
  readonly signal?: AbortSignal | null
  /** Who hears the completion as it comes from this adapter's call, if anyone does. */
  readonly listen?: (adapter: Adapter, signature: Signature) => TextListener
}

/** A call as it went: one result for each completion. */
export interface AdapterCall {
  readonly adapter: Adapter
  readonly messages: readonly Message[]
  readonly completions: readonly LMOutput[]
  readonly results: readonly ParseResult[]
}

const MISSING_IN_DEMO = 'Not supplied for this particular example. '
const MISSING_IN_HISTORY = 'Not supplied for this conversation history message. '
const INCOMPLETE_DEMO = 'This is an example of the task, though some input or output fields are not supplied.'

export interface UserMessageOptions {
  readonly prefix?: string
  /** The request proper: it ends by saying what to answer. */
  readonly isRequest?: boolean
}

/** A format: how a signature, its demos and inputs become messages, and how answers are read. */
export abstract class Adapter {
  /** The class's name in error messages. */
  get name(): string {
    return this.constructor.name
  }

  /** Formats, calls, reads. A completion that can't be read is a result with issues; only the LM's own errors are thrown. */
  async call(request: AdapterRequest): Promise<AdapterCall> {
    const { lm, options, signature, demos, inputs, signal } = request
    const messages = this.format(signature, demos, inputs)
    const listener = request.listen?.(this, signature)
    const { outputs } = await lm.call({ ...options, messages, signal: signal ?? null, onText: listener?.onText })
    listener?.onEnd()
    const results = outputs.map(({ text }) => this.#read(signature, text))
    return { adapter: this, messages, completions: outputs, results }
  }

  /** Whatever a model wrote gives a result: also nothing at all, and brackets that open for ever. */
  #read(signature: Signature, text: string): ParseResult {
    const refuse = (message: string) => this.failure(signature, text, { issues: [{ field: null, message }] })
    if (text === '') return refuse('The LM returned an empty or null response.')
    try {
      return this.tryParse(signature, text)
    } catch (error) {
      if (error instanceof RangeError) return refuse(`The LM's response is nested too deeply: ${error.message}.`)
      throw error
    }
  }

  /** The messages of a call: system, demos, the conversation so far, the request. */
  format(signature: Signature, demos: readonly Demo[], inputs: object): Message[] {
    const values = fieldsOf(inputs)
    const history = signature.inputFields.find((field) => field.type.kind === 'history')
    const current = history ? (signature.delete(history.name) as Signature) : signature
    const request = this.formatUserMessage(current, values, { isRequest: true })
    return [
      { role: 'system', content: this.formatSystemMessage(signature) },
      ...this.formatDemos(signature, demos),
      ...(history ? this.#formatHistory(current, values[history.name]) : []),
      ...(request === '' ? [] : [{ role: 'user', content: request }]),
    ]
  }

  /** The first call, or the second one when the first brings nothing that can be read. The model's own errors and aborts are thrown at once. */
  protected async firstReadable(
    request: AdapterRequest,
    first: () => Promise<AdapterCall>,
    second: () => Promise<AdapterCall>,
  ): Promise<AdapterCall> {
    let why: unknown
    try {
      const call = await first()
      const unread = call.results.find((result) => result.issues)
      if (!unread?.issues) return call
      why = unread.error
    } catch (error) {
      if (error instanceof LMError || request.signal?.aborted) throw error
      why = error
    }
    return becauseOf(why, second)
  }

  formatSystemMessage(signature: Signature): string {
    return [
      this.formatFieldDescription(signature),
      this.formatFieldStructure(signature),
      this.formatTaskDescription(signature),
    ].join('\n')
  }

  formatFieldDescription(signature: Signature): string {
    return describeSignature(signature)
  }

  /** Fields with their values, as this adapter's answers hold them. */
  formatFields(fields: readonly Field[], value: (field: Field) => unknown): string {
    return strip(fields.map((field) => headedField(field, value(field))).join('\n\n'))
  }

  /** The instructions, every line of them indented by eight spaces. */
  formatTaskDescription(signature: Signature): string {
    const lines = splitLines(dedent(signature.instructions))
    return `In adhering to this structure, your objective is: ${lines.map((line) => `\n        ${line}`).join('')}`
  }

  /** Demos that lack fields come first and say so; those without any input or any output are left out. */
  formatDemos(signature: Signature, demos: readonly Demo[]): Message[] {
    const rows = demos.map(fieldsOf)
    const isComplete = (row: Loose) =>
      signature.fields.every((field) => row[field.name] !== undefined && row[field.name] !== null)
    const hasAny = (fields: readonly Field[], row: Loose) => fields.some((field) => Object.hasOwn(row, field.name))
    const complete = rows.filter(isComplete)
    const incomplete = rows.filter(
      (row) => !isComplete(row) && hasAny(signature.inputFields, row) && hasAny(signature.outputFields, row),
    )
    const turns = (row: Loose, prefix: string, missing: string): Message[] => [
      { role: 'user', content: this.formatUserMessage(signature, row, { prefix }) },
      { role: 'assistant', content: this.formatAssistantMessage(signature, row, missing) },
    ]
    return [
      ...incomplete.flatMap((row) => turns(row, INCOMPLETE_DEMO, MISSING_IN_DEMO)),
      ...complete.flatMap((row) => turns(row, '', MISSING_IN_HISTORY)),
    ]
  }

  #formatHistory(signature: Signature, history: unknown): Message[] {
    const { messages = [] } = (history ?? {}) as { messages?: readonly Loose[] }
    if (typeof history === 'string' || !Array.isArray(messages))
      throw new OptionError(
        `A conversation must be a dspy.History, but it is ${JSON.stringify(history).slice(0, 80)}. Write new dspy.History([{ question, answer }]).`,
      )
    return messages.flatMap((turn) => {
      const user = this.formatUserMessage(signature, turn)
      const assistant = this.formatAssistantMessage(signature, turn)
      return [
        ...(user === '' ? [] : [{ role: 'user', content: user }]),
        ...(assistant === '' ? [] : [{ role: 'assistant', content: assistant }]),
      ]
    })
  }

  /** A call and its answer as training data. */
  formatFinetuneData(signature: Signature, demos: readonly Demo[], inputs: object, outputs: object): { messages: Message[] } {
    const answer = this.formatAssistantMessage(signature, fieldsOf(outputs))
    return { messages: [...this.format(signature, demos, inputs), { role: 'assistant', content: answer }] }
  }

  /** The fields of a completion. @throws AdapterParseError */
  parse(signature: Signature, completion: string): Loose {
    const result = this.tryParse(signature, completion)
    if (result.issues) throw result.error
    return result.fields
  }

  /** A failure to read one field: which value, and why. */
  protected fieldFailure(
    signature: Signature,
    raw: string,
    bad: { name: string; value: unknown; error: TypeMismatch },
  ): ParseResult {
    const { name, value, error } = bad
    const message = `Failed to parse field ${name} with value ${pyStr(value)} from the LM response. Error message: ${error.message}`
    return this.failure(signature, raw, { issues: [{ field: name, message }], cause: error })
  }

  /** As `parse`, with the failure as a value. */
  abstract tryParse(signature: Signature, completion: string): ParseResult
  abstract formatFieldStructure(signature: Signature): string
  abstract formatUserMessage(signature: Signature, inputs: Loose, options?: UserMessageOptions): string
  /** `missing` stands for outputs that aren't there; without it they read None. */
  abstract formatAssistantMessage(signature: Signature, outputs: Loose, missing?: string): string

  /** Fills defaults, and reports what is still missing. */
  protected complete(signature: Signature, raw: string, found: Loose): ParseResult {
    const fields: Loose = {}
    for (const field of signature.outputFields) {
      if (Object.hasOwn(found, field.name)) fields[field.name] = found[field.name]
      else if ('default' in field) fields[field.name] = field.default
      else if (allowsNone(field.type)) fields[field.name] = null
    }
    const missing = signature.outputFields.filter((field) => !Object.hasOwn(fields, field.name))
    if (missing.length === 0) return { fields }
    const issues = missing.map((field) => ({ field: field.name, message: `the field '${field.name}' is missing` }))
    return this.failure(signature, raw, { issues, partial: fields })
  }

  /** A result with issues; its error reads as DSPy's, the first issue in front unless fields are only missing. */
  protected failure(
    signature: Signature,
    raw: string,
    details: { issues: readonly ParseIssue[]; partial?: Loose; cause?: unknown },
  ): ParseResult {
    const { issues, partial = null, cause } = details
    const names = (fields: readonly string[]) => `[${fields.join(', ')}]`
    const message =
      (partial ? '' : `${issues[0]!.message}\n\n`) +
      `Adapter ${this.name} failed to parse the LM response. \n\nLM Response: ${raw} \n\n` +
      `Expected to find output fields in the LM response: ${names(signature.outputFields.map((field) => field.name))} \n\n` +
      (partial ? `Actual output fields parsed from the LM response: ${names(Object.keys(partial))} \n\n` : '')
    return {
      issues,
      raw,
      partial,
      error: new AdapterParseError(message, { adapterName: this.name, raw, parsed: partial, cause }),
    }
  }
}

/** Gives what fails in `second` the failure that made it necessary as its cause, unless it has one. */
async function becauseOf(why: unknown, second: () => Promise<AdapterCall>): Promise<AdapterCall> {
  const blame = (error: Error) => {
    error.cause ??= why
  }
  try {
    const call = await second()
    for (const result of call.results) if (result.issues) blame(result.error)
    return call
  } catch (error) {
    if (error instanceof Error) blame(error)
    throw error
  }
}
