// `LM`: a language model behind OpenAI's protocol, through the openai package; its answers are cached where that is right.

import { OptionError } from '../errors'
import type { Message } from '../protocol'
import { BaseLM, type LMCall, type LMOptions, type LMResponse, type LMUsage } from './base-lm'
import { cacheKey, currentCache } from './cache'
import { type ChatClient, openClient, toLMError, toResponse, wireOptions } from './chat-client'
import { currentSettings } from './context'

export { WIRE_NAMES } from './chat-client'

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
