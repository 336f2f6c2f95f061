// The seam between programs and language models: one call, n completions, and a record of the latest calls.

import { OptionError } from '../errors'
import type { Message } from '../protocol'
import { watched } from './callbacks'
import { currentSettings } from './context'
import { HistoryView } from './inspect-history'

/** Sampling values and other options of a call. What is absent is left to the server. */
export interface LMOptions {
  readonly temperature?: number | null
  readonly maxTokens?: number | null
  readonly topP?: number | null
  readonly topK?: number | null
  readonly minP?: number | null
  readonly repetitionPenalty?: number | null
  readonly seed?: number | null
  readonly stop?: string | readonly string[] | null
  /** Completions wanted. */
  readonly n?: number | null
  /** Ask for the logprobs of the sampled tokens. */
  readonly logprobs?: boolean | null
  readonly topLogprobs?: number | null
  /** Tells repeated calls of the same prompt apart, in the cache too; never sent. */
  readonly rolloutId?: number | null
  /** How the answer has to be written, where the service can be told. */
  readonly responseFormat?: ResponseFormat | null
  /** Whether an answer may come from the cache, and is kept in it. */
  readonly cache?: boolean | null
  /** Further fields of the request body, with their wire names. */
  readonly extraBody?: Readonly<Record<string, unknown>>
}

/** OpenAI's `response_format`: any JSON object, or one of a schema. */
export type ResponseFormat =
  | { readonly type: 'json_object' }
  | {
      readonly type: 'json_schema'
      readonly json_schema: {
        readonly name: string
        readonly strict: boolean
        readonly schema: Readonly<Record<string, unknown>>
      }
    }

export interface LMRequest extends LMOptions {
  readonly messages?: readonly Message[]
  /** A single user message. */
  readonly prompt?: string
  readonly signal?: AbortSignal | null
  /** Told the text of the first completion piece by piece as it comes, or at once where the model doesn't stream. */
  readonly onText?: ((text: string) => void) | null
}

export interface TokenLogprob {
  readonly token: string
  /** Natural log. */
  readonly logprob: number
}

export interface LMOutput {
  readonly text: string
  /** `${response.id}#${choice.index}`: the server finds the sampled tokens by it. */
  readonly completionId: string
  /** 'stop', 'length', … */
  readonly finishReason: string | null
  readonly logprobs?: readonly TokenLogprob[]
}

export interface LMUsage {
  readonly promptTokens: number
  readonly completionTokens: number
  readonly totalTokens: number
}

export interface LMResponse {
  readonly id: string
  readonly model: string
  /** In the order of the choices. */
  readonly outputs: readonly LMOutput[]
  readonly usage: LMUsage
  /** Not asked anew. */
  readonly cacheHit?: boolean
}

export interface HistoryEntry {
  readonly model: string
  readonly messages: readonly Message[]
  readonly options: LMOptions
  readonly outputs: readonly LMOutput[]
  readonly usage: LMUsage
  readonly cacheHit: boolean
  /** When the answer came. */
  readonly time: Date
}

/** What a program needs of a language model. */
export abstract class BaseLM {
  /** As the program names it, e.g. 'openai/arbor:NAME'. */
  readonly model: string
  /** Default options of every call. */
  readonly options: LMOptions
  /** The latest calls, oldest first. */
  readonly history: HistoryEntry[] = []
  /** Calls kept in `history`. */
  maxHistory = 1000

  constructor(model: string, options: LMOptions = {}) {
    this.model = model
    this.options = options
  }

  /** Whether calls may set `responseFormat`. */
  get supportsResponseFormat(): boolean {
    return false
  }

  /** Whether `responseFormat` may be a schema. */
  get supportsResponseSchema(): boolean {
    return false
  }

  /** One request, `n` outputs. @throws LMError, ContextWindowExceededError */
  async call(request: LMRequest): Promise<LMResponse> {
    const { messages, prompt, signal, onText, ...given } = request
    if (messages === undefined && prompt === undefined) throw new OptionError('An LM call needs `messages` or a `prompt`.')
    const sent = messages ?? [{ role: 'user', content: prompt! }]
    const options = withoutNulls({ ...this.options, ...given })
    signal?.throwIfAborted()
    const call = { signal: signal ?? undefined, ...(onText ? { onText } : {}) }
    const response = await watched('Lm', { instance: this, inputs: request }, () => this.answer(sent, options, call))
    this.remember(sent, options, response)
    if (response.outputs.some(({ finishReason }) => finishReason === 'length')) warnOfCut(this.model, options)
    return response
  }

  private async answer(messages: readonly Message[], options: LMOptions, { signal, onText }: LMCall): Promise<LMResponse> {
    if (!onText) return this.forward(messages, options, signal)
    let streamed = false
    const heard = (text: string) => {
      streamed = true
      onText(text)
    }
    const response = await this.forward(messages, options, signal, heard)
    if (!streamed && response.outputs[0]) onText(response.outputs[0].text)
    return response
  }

  private remember(messages: readonly Message[], options: LMOptions, { outputs, usage, cacheHit = false }: LMResponse): void {
    const entry: HistoryEntry = { model: this.model, messages, options, outputs, usage, cacheHit, time: new Date() }
    keepLatest(this.history, entry, this.maxHistory)
    keepLatest(everyCall, entry, MAX_CALLS)
    for (const observe of currentSettings().lmObservers) observe(entry)
  }

  /** The latest `n` calls of this model, to be read: in a notebook as the last line of a cell, else through `console.log`. */
  inspectHistory(n = 1): HistoryView {
    return new HistoryView(latest(this.history, n))
  }

  /** The same model with other options or another name. */
  abstract copy(changes?: { readonly model?: string } & LMOptions): BaseLM

  /** The saved form: no secrets. */
  abstract dumpState(): Record<string, unknown>

  /** Sends the request. `options` holds no null. A model that streams tells `onText` the first completion as it comes. */
  protected abstract forward(
    messages: readonly Message[],
    options: LMOptions,
    signal?: AbortSignal,
    onText?: (text: string) => void,
  ): Promise<LMResponse>
}

export interface LMCall {
  readonly signal: AbortSignal | undefined
  readonly onText?: (text: string) => void
}

/** A cut-off answer often can't be read, and the error alone would not tell why. */
function warnOfCut(model: string, { maxTokens }: LMOptions): void {
  const limit = maxTokens === undefined ? "the server's limit of tokens" : `maxTokens (${maxTokens})`
  currentSettings().onWarning?.(
    `An answer of ${model} was cut off at ${limit}. Give more, or see dspy.inspectHistory() for what it was about.`,
  )
}

/** The latest calls of all models. */
const everyCall: HistoryEntry[] = []
const MAX_CALLS = 1000

function keepLatest<T>(list: T[], item: T, max: number): void {
  list.push(item)
  while (list.length > max) list.shift() // moves no items, unlike splice
}

function latest<T>(list: readonly T[], n: number): T[] {
  if (!(n >= 1)) throw new OptionError(`inspectHistory takes a number of calls from 1 on, but got ${n}.`)
  return list.slice(-n)
}

/**
 * The latest `n` calls of all language models, to be read.
 * @example dspy.inspectHistory(2) // as the last line of a cell
 */
export function inspectHistory(n = 1): HistoryView {
  return new HistoryView(latest(everyCall, n))
}

/** Options without the fields that are null or undefined. */
export function withoutNulls(options: LMOptions): LMOptions {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== null && value !== undefined))
}
