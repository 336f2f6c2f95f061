// One chat completion over HTTP through the openai package: sent, repeated where that helps, read whole or as it comes.

import type { OpenAI } from 'openai'
import { ContextWindowExceededError, LMError } from '../errors'
import type { Message } from '../protocol'
import type { LMOptions, LMResponse, TokenLogprob } from './base-lm'
import { patientFetch } from './patient-fetch'
import { GaveUp, withRetries } from './retry'
import { groupSeeds } from './seed-groups'

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
  readonly usage?: ChatUsage | null
}

interface ChatUsage {
  readonly prompt_tokens: number
  readonly completion_tokens: number
  readonly total_tokens: number
}

export interface ChatCall {
  readonly signal?: AbortSignal
  /** Told the text of the first choice piece by piece; then the answer is streamed. */
  readonly onText?: (text: string) => void
  /** Name and number of the requests made at this moment, this one among them, as our own server wants them (server/moments.ts). */
  readonly together?: string
}

export type ChatClient = (body: Record<string, unknown>, call?: ChatCall) => Promise<ChatCompletion>

export interface ChatService {
  readonly apiBase: string | undefined
  readonly numRetries: number
  readonly timeoutMs: number
  readonly groupSeeds: boolean
}

/** Loads the openai package at the first call: importing it takes longer than a cell should. */
export async function openClient(service: ChatService, apiKey: string | undefined): Promise<ChatClient> {
  const { OpenAI } = await import('openai')
  const key = apiKey ?? process.env['OPENAI_API_KEY'] ?? 'none'
  const openai = new OpenAI({
    apiKey: key,
    baseURL: service.apiBase,
    maxRetries: 0, // counted here, so that the error can say how often it was tried
    timeout: service.timeoutMs,
    fetch: patientFetch as typeof fetch, // timeoutMs alone says how long an answer may take
  })
  const { apiBase, timeoutMs } = service
  const own = service.groupSeeds && apiBase !== undefined ? (await import('./own-server')).askOwnServer : null
  const answered = async (body: Record<string, unknown>, call: ChatCall) =>
    own
      ? own({ apiBase: apiBase!, apiKey: key, timeoutMs }, body, call)
      : ((await openai.chat.completions.create(body as never, { signal: call.signal })) as unknown as ChatCompletion | null)
  const ask: ChatClient = (body, call = {}) => {
    const { signal, onText } = call
    let { together } = call
    let begun = false // text that was handed on can't be taken back
    const hear = (text: string) => {
      begun = true
      onText?.(text)
    }
    const attempt = () => {
      if (onText) return streamed(openai, body, { signal, onText: hear })
      const answer = whole(answered(body, { signal, together }))
      together = undefined // the others don't wait for a repetition, nor it for them
      return answer
    }
    return withRetries(attempt, { retries: service.numRetries, signal, mayRepeat: () => !begun })
  }
  return service.groupSeeds ? groupSeeds(ask) : ask
}

async function whole(answer: Promise<ChatCompletion | null>): Promise<ChatCompletion> {
  const completion = await answer
  if (!completion?.choices) throw Object.assign(new Error(NO_COMPLETION), { status: 502 })
  return completion
}

/** A real Arbor answers `null`, with status 200, whenever its vLLM refuses or fails. */
const NO_COMPLETION =
  'the service answered without a completion; a real Arbor does so when its vLLM failed (its inference.log says why: the prompt may be too long)'

interface ChatChunk {
  readonly id: string
  readonly model?: string
  readonly choices: readonly {
    readonly index: number
    readonly delta?: { readonly content?: string | null }
    readonly finish_reason?: string | null
    readonly logprobs?: { readonly content?: readonly TokenLogprob[] | null } | null
  }[]
  readonly usage?: ChatUsage | null
}

interface ChoiceSoFar {
  text: string
  finishReason: string | null
  logprobs: TokenLogprob[] | null
}

/** The same completion from a stream of chunks. */
async function streamed(
  openai: OpenAI,
  body: Record<string, unknown>,
  { signal, onText }: { signal?: AbortSignal; onText: (text: string) => void },
): Promise<ChatCompletion> {
  const request = { ...body, stream: true, stream_options: { include_usage: true } }
  const chunks = (await openai.chat.completions.create(request as never, { signal })) as unknown as AsyncIterable<ChatChunk>
  const choices = new Map<number, ChoiceSoFar>()
  let head: { id: string; model?: string } = { id: '' }
  let usage: ChatUsage | null = null
  for await (const chunk of chunks) {
    head = { id: chunk.id, ...(chunk.model === undefined ? {} : { model: chunk.model }) }
    usage = chunk.usage ?? usage
    for (const { index, delta, finish_reason, logprobs } of chunk.choices ?? []) {
      const choice = choices.get(index) ?? { text: '', finishReason: null, logprobs: null }
      choices.set(index, choice)
      choice.text += delta?.content ?? ''
      choice.finishReason = finish_reason ?? choice.finishReason
      if (logprobs?.content) choice.logprobs = [...(choice.logprobs ?? []), ...logprobs.content]
      if (index === 0 && delta?.content) onText(delta.content)
    }
  }
  const ordered = [...choices].sort(([a], [b]) => a - b)
  return {
    ...head,
    choices: ordered.map(([index, choice]) => ({
      index,
      finish_reason: choice.finishReason,
      message: { content: choice.text },
      logprobs: choice.logprobs && { content: choice.logprobs },
    })),
    usage,
  }
}

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
export function wireOptions(options: LMOptions): Record<string, unknown> {
  const { rolloutId: _, cache: __, extraBody, ...rest } = options
  const named = Object.entries(rest).filter(([, value]) => value !== null && value !== undefined)
  return { ...Object.fromEntries(named.map(([key, value]) => [WIRE_NAMES[key] ?? key, value])), ...extraBody }
}

export function toResponse(completion: ChatCompletion, model: string): LMResponse {
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

/** Words of the last message that name a request to a person. */
const SHOWN_CHARACTERS = 60

/** What went wrong, with what was asked of whom, how often and for how long. */
export function toLMError(
  thrown: unknown,
  request: {
    readonly model: string
    readonly apiBase: string | undefined
    readonly timeoutMs: number
    readonly messages: readonly Message[]
  },
): LMError {
  const error = thrown instanceof GaveUp ? thrown.cause : thrown
  const { status = 0, code, message } = error as { status?: number; code?: string | null; message?: string }
  const text = (message ?? String(error)).replace(/\.$/, '')
  const where = `${request.model} at ${request.apiBase ?? 'api.openai.com'}`
  if (code === 'context_length_exceeded' || /maximum context length/i.test(text)) {
    return new ContextWindowExceededError(`The prompt doesn't fit ${where}: ${text}`, { status, cause: error })
  }
  const last = (request.messages.at(-1)?.content ?? '').replace(/\s+/g, ' ').trim()
  const words = last.length > SHOWN_CHARACTERS ? `${last.slice(0, SHOWN_CHARACTERS)}…` : last
  const effort =
    thrown instanceof GaveUp
      ? ` ${thrown.attempts} ${thrown.attempts === 1 ? 'attempt' : 'attempts'} in ${thrown.seconds.toFixed(1)} s;`
      : ''
  const late = (error as Error | undefined)?.constructor.name === 'APIConnectionTimeoutError'
  const advice = late
    ? ` No answer came within timeoutMs (${request.timeoutMs}): allow more, or ask for fewer tokens.`
    : ' Is the server running, and is `apiBase` right?'
  const reach = status === 0 ? advice : ''
  return new LMError(
    `The call of ${where} failed${status ? ` with status ${status}` : ''}: ${text}.${effort} the last message begins ${JSON.stringify(words)}.${reach}`,
    { status, cause: error },
  )
}
