// The seam between programs and language models: one call, n completions. `LM` speaks OpenAI's protocol through the openai package.

import { ContextWindowExceededError, LMError, OptionError } from '../errors'
import type { Message } from '../protocol'
import { currentSettings } from './context'
import { groupSeeds } from './seed-groups'

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
  /** Tells repeated calls of the same prompt apart; never sent. */
  readonly rolloutId?: number | null
  /** How the answer has to be written, where the service can be told. */
  readonly responseFormat?: ResponseFormat | null
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
}

export interface HistoryEntry {
  readonly messages: readonly Message[]
  readonly options: LMOptions
  readonly outputs: readonly LMOutput[]
  readonly usage: LMUsage
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
    const { messages, prompt, signal, ...given } = request
    if (messages === undefined && prompt === undefined) throw new OptionError('An LM call needs `messages` or a `prompt`.')
    const sent = messages ?? [{ role: 'user', content: prompt! }]
    const options = withoutNulls({ ...this.options, ...given })
    signal?.throwIfAborted()
    const response = await this.forward(sent, options, signal ?? undefined)
    const entry = { messages: sent, options, outputs: response.outputs, usage: response.usage, time: new Date() }
    this.history.push(entry)
    for (const observe of currentSettings().lmObservers) observe(entry)
    if (this.history.length > this.maxHistory) this.history.splice(0, this.history.length - this.maxHistory)
    return response
  }

  /** The same model with other options or another name. */
  abstract copy(changes?: { readonly model?: string } & LMOptions): BaseLM

  /** The saved form: no secrets. */
  abstract dumpState(): Record<string, unknown>

  /** Sends the request. `options` holds no null. */
  protected abstract forward(messages: readonly Message[], options: LMOptions, signal?: AbortSignal): Promise<LMResponse>
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
  /** Repeats after a lost connection, a rate limit or a server error, with growing waits. */
  readonly numRetries?: number
  /** Longest wait for one answer. */
  readonly timeoutMs?: number
  /** Send calls of one moment that differ in their seed alone as one request. Our own server takes such requests, others don't. */
  readonly groupSeeds?: boolean
}

const CONFIG_KEYS = ['provider', 'apiBase', 'apiKey', 'numRetries', 'timeoutMs', 'groupSeeds'] as const

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
    this.#apiKey = config.apiKey
  }

  override copy(changes: { readonly model?: string } & LMConfig = {}): LM {
    const { model = this.model, ...config } = changes
    const { provider, apiBase, numRetries, timeoutMs, groupSeeds } = this
    const own = { provider, apiBase, numRetries, timeoutMs, groupSeeds, apiKey: this.#apiKey }
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
      cache: true,
      num_retries: this.numRetries,
      ...wireOptions(this.options),
      ...(this.apiBase ? { api_base: this.apiBase } : {}),
      finetuning_model: null,
      launch_kwargs: {},
      train_kwargs: {},
    }
  }

  protected override async forward(messages: readonly Message[], options: LMOptions, signal?: AbortSignal): Promise<LMResponse> {
    const client = await (this.#client ??= openClient(this, this.#apiKey))
    const model = this.model.replace(/^openai\//, '') // 'openai/' picks the protocol; the rest names the model
    try {
      return toResponse(await client({ model, messages, ...wireOptions(options) }, signal), model)
    } catch (error) {
      signal?.throwIfAborted()
      throw toLMError(error, this)
    }
  }
}

/** Models that answer by a JSON schema, as DSPy's table of models has them. */
const TAKES_SCHEMAS = /^(?:openai\/)?(?:gpt-4o|gpt-4\.1|gpt-5|o[134])(?:$|[-.:])/

/** Names of options as services and DSPy's states write them. */
export const WIRE_NAMES: Readonly<Record<string, string>> = {
  maxTokens: 'max_tokens',
  topP: 'top_p',
  topK: 'top_k',
  minP: 'min_p',
  repetitionPenalty: 'repetition_penalty',
  topLogprobs: 'top_logprobs',
  responseFormat: 'response_format',
}

/** Options with their wire names; what other services don't know goes beside, as vLLM takes it. */
function wireOptions(options: LMOptions): Record<string, unknown> {
  const { rolloutId: _, extraBody, ...rest } = options
  const named = Object.entries(rest).filter(([, value]) => value !== null && value !== undefined)
  return { ...Object.fromEntries(named.map(([key, value]) => [WIRE_NAMES[key] ?? key, value])), ...extraBody }
}

/** The part of OpenAI's response that is read. */
export interface ChatCompletion {
  readonly id: string
  readonly model?: string
  readonly choices: readonly {
    readonly index: number
    readonly finish_reason: string | null
    readonly message: { readonly content: string | null }
    /** Ours, of a request with a list of seeds. */
    readonly completion_tokens?: number
    readonly logprobs?: { readonly content?: readonly TokenLogprob[] | null } | null
  }[]
  readonly usage?: { readonly prompt_tokens: number; readonly completion_tokens: number; readonly total_tokens: number } | null
}

export type ChatClient = (body: Record<string, unknown>, signal?: AbortSignal) => Promise<ChatCompletion>

/** Loads the openai package at the first call: importing it takes longer than a cell should. */
async function openClient(lm: LM, apiKey: string | undefined): Promise<ChatClient> {
  const { OpenAI } = await import('openai')
  const client = new OpenAI({
    apiKey: apiKey ?? process.env.OPENAI_API_KEY ?? 'none',
    baseURL: lm.apiBase,
    maxRetries: lm.numRetries,
    timeout: lm.timeoutMs,
  })
  const ask: ChatClient = async (body, signal) =>
    (await client.chat.completions.create(body as never, { signal })) as unknown as ChatCompletion
  return lm.groupSeeds ? groupSeeds(ask) : ask
}

function toResponse(completion: ChatCompletion, model: string): LMResponse {
  const { usage } = completion
  return {
    id: completion.id,
    model: completion.model ?? model,
    outputs: completion.choices.map((choice) => ({
      text: choice.message.content ?? '',
      completionId: `${completion.id}#${choice.index}`,
      finishReason: choice.finish_reason,
      ...(choice.logprobs?.content
        ? { logprobs: choice.logprobs.content.map(({ token, logprob }) => ({ token, logprob })) }
        : {}),
    })),
    usage: {
      promptTokens: usage?.prompt_tokens ?? 0,
      completionTokens: usage?.completion_tokens ?? 0,
      totalTokens: usage?.total_tokens ?? 0,
    },
  }
}

function toLMError(error: unknown, lm: LM): LMError {
  const { status = 0, code, message } = error as { status?: number; code?: string | null; message?: string }
  const text = (message ?? String(error)).replace(/\.$/, '')
  const where = `${lm.model} at ${lm.apiBase ?? 'api.openai.com'}`
  if (code === 'context_length_exceeded' || /maximum context length/i.test(text)) {
    return new ContextWindowExceededError(`The prompt doesn't fit ${where}: ${text}`, { status, cause: error })
  }
  const reach = status === 0 ? ' Is the server running, and is `apiBase` right?' : ''
  return new LMError(`The call of ${where} failed${status ? ` with status ${status}` : ''}: ${text}.${reach}`, {
    status,
    cause: error,
  })
}
