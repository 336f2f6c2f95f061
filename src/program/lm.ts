// The seam between programs and language models: one call, n completions. `LM` speaks OpenAI's protocol through the openai package.

import { OptionError } from '../errors'
import type { Message } from '../protocol'
import { cacheKey, currentCache } from './cache'
import { watched } from './callbacks'
import { type ChatClient, openClient, toLMError, toResponse, wireOptions } from './chat-client'
import { currentSettings } from './context'
import { HistoryView } from './inspect-history'

export { WIRE_NAMES } from './chat-client'

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

interface LMCall {
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

/** What `LM` takes besides the sampling values. */
export interface LMConfig extends LMOptions {
  /** Where weights are trained, e.g. `new arbor.ArborProvider()`; the optimizers ask for it. */
  readonly provider?: unknown
  /** The server's root, e.g. 'http://127.0.0.1:7453/v1'. */
  readonly apiBase?: string
  /** Defaults to OPENAI_API_KEY; our own server wants none. */
  readonly apiKey?: string
  /** Repeats after a lost connection, a wait too long, a rate limit or a server error: after growing waits, or as `Retry-After` says. */
  readonly numRetries?: number
  /** Longest wait for one answer, in milliseconds. */
  readonly timeoutMs?: number
  /** Send calls of one moment that differ in their seed alone as one request. Our own server takes such requests, others don't. */
  readonly groupSeeds?: boolean
}

const CONFIG_KEYS = ['provider', 'apiBase', 'apiKey', 'numRetries', 'timeoutMs', 'groupSeeds', 'cache'] as const

/** A model on this machine, or one that is trained: its weights may change under the same name, so it is asked anew. */
function mayChange({ provider, apiBase }: LMConfig): boolean {
  return (provider ?? null) !== null || /^https?:\/\/(?:localhost|127\.|\[::1\])/.test(apiBase ?? '')
}

/**
 * A model behind an OpenAI-compatible service.
 * @example new LM('openai/arbor:HuggingFaceTB/SmolLM2-135M-Instruct', { apiBase: server.baseUrl, temperature: 1 })
 */
export class LM extends BaseLM {
  readonly provider: unknown
  readonly apiBase: string | undefined
  readonly numRetries: number
  readonly timeoutMs: number
  readonly groupSeeds: boolean
  /** Whether answers are kept on disk and used again. As in dspy all that is sent and the rollout id count, key and address don't. */
  readonly cache: boolean
  readonly #apiKey: string | undefined
  #client: Promise<ChatClient> | null = null

  constructor(model: string, config: LMConfig = {}) {
    if (typeof model !== 'string' || model === '')
      throw new OptionError(`An LM needs a model name, but got ${JSON.stringify(model)}.`)
    const options = Object.fromEntries(
      Object.entries(config).filter(([key]) => !(CONFIG_KEYS as readonly string[]).includes(key)),
    )
    super(model, options)
    this.provider = config.provider
    this.apiBase = config.apiBase
    this.numRetries = config.numRetries ?? 3
    this.timeoutMs = config.timeoutMs ?? 600_000
    this.groupSeeds = config.groupSeeds ?? false
    this.cache = config.cache ?? !mayChange(config)
    this.#apiKey = config.apiKey
  }

  override copy(changes: { readonly model?: string } & LMConfig = {}): LM {
    const { model = this.model, ...config } = changes
    const { provider, apiBase, numRetries, timeoutMs, groupSeeds, cache } = this
    const own = { provider, apiBase, numRetries, timeoutMs, groupSeeds, cache, apiKey: this.#apiKey }
    const copy = new LM(model, { ...this.options, ...own, ...config })
    copy.maxHistory = this.maxHistory
    return copy
  }

  /** OpenAI's protocol has the option; services that don't know it pass over it. */
  override get supportsResponseFormat(): boolean {
    return true
  }

  override get supportsResponseSchema(): boolean {
    return TAKES_SCHEMAS.test(this.model)
  }

  /** DSPy's form, which Python's `dspy.LM` loads. */
  override dumpState(): Record<string, unknown> {
    return {
      _dspy_lm_class: 'dspy.clients.lm.LM',
      model: this.model,
      model_type: 'chat',
      cache: this.cache,
      num_retries: this.numRetries,
      ...wireOptions(this.options),
      ...(this.apiBase ? { api_base: this.apiBase } : {}),
      finetuning_model: null,
      launch_kwargs: {},
      train_kwargs: {},
    }
  }

  protected override async forward(
    messages: readonly Message[],
    options: LMOptions,
    signal?: AbortSignal,
    onText?: (text: string) => void,
  ): Promise<LMResponse> {
    const ask = () => this.ask(messages, options, { signal, ...(onText ? { onText } : {}) })
    const cache = (options.cache ?? this.cache) ? currentCache() : null
    if (!cache) return ask()
    const { rolloutId } = options
    const key = cacheKey({
      model: this.model,
      messages,
      ...wireOptions(options),
      ...(rolloutId === undefined ? {} : { rolloutId }),
    })
    const kept = await cache.get(key)
    if (kept) return { ...kept, usage: NO_USAGE, cacheHit: true }
    const response = await ask()
    if (!(await cache.set(key, response)))
      currentSettings().onWarning?.(`An answer could not be kept in the cache ${cache.folder}.`)
    return response
  }

  private async ask(messages: readonly Message[], options: LMOptions, call: LMCall): Promise<LMResponse> {
    const client = await (this.#client ??= openClient(this, this.#apiKey))
    const model = this.model.replace(/^openai\//, '') // 'openai/' picks the protocol; the rest names the model
    try {
      return toResponse(await client({ model, messages, ...wireOptions(options) }, call), model)
    } catch (error) {
      call.signal?.throwIfAborted()
      throw toLMError(error, { model: this.model, apiBase: this.apiBase, timeoutMs: this.timeoutMs, messages })
    }
  }
}

const NO_USAGE: LMUsage = { promptTokens: 0, completionTokens: 0, totalTokens: 0 }

/** Models that answer by a JSON schema, as DSPy's table of models has them. */
const TAKES_SCHEMAS = /^(?:openai\/)?(?:gpt-4o|gpt-4\.1|gpt-5|o[134])(?:$|[-.:])/
