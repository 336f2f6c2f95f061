// A chat completion of our own server, asked without the openai package: it takes longer over a request than all else that a client does, and a
// training step makes dozens at one moment.

import { setMaxListeners } from 'node:events'
import { APIConnectionError, APIConnectionTimeoutError } from 'openai'
import { TOGETHER } from '../protocol'
import type { ChatCall, ChatCompletion } from './chat-client'
import { patientPost, type WholeAnswer } from './patient-fetch'

export interface OwnServer {
  readonly apiBase: string
  readonly apiKey: string
  readonly timeoutMs: number
}

/** The answer to `body`. Fails as the openai package does: errors have `status`, `code` and `headers`, or are one of its two of a lost connection. */
export async function askOwnServer(server: OwnServer, body: object, call: ChatCall = {}): Promise<ChatCompletion | null> {
  const { status, headers, text } = await post(server, JSON.stringify(body), call)
  if (status >= 200 && status < 300) return JSON.parse(text) as ChatCompletion
  const { message = text, code = null } = errorIn(text)
  throw Object.assign(new Error(`${status} ${message}`), { status, code, headers })
}

async function post(
  { apiBase, apiKey, timeoutMs }: OwnServer,
  body: string,
  { signal, together }: ChatCall,
): Promise<WholeAnswer> {
  const plain = { 'content-type': 'application/json', accept: 'application/json', authorization: `Bearer ${apiKey}` }
  const headers = together === undefined ? plain : { ...plain, [TOGETHER]: together }
  const ended = new AbortController()
  const end = () => ended.abort(signal?.reason)
  const late = setTimeout(() => ended.abort(new APIConnectionTimeoutError()), timeoutMs)
  if (signal) setMaxListeners(0, signal) // hundreds of requests may listen to one
  signal?.addEventListener('abort', end, { once: true })
  try {
    signal?.throwIfAborted()
    return await patientPost(`${apiBase.replace(/\/$/, '')}/chat/completions`, { headers, body, signal: ended.signal })
  } catch (error) {
    signal?.throwIfAborted()
    if (error instanceof APIConnectionTimeoutError) throw error
    throw new APIConnectionError({ cause: error as Error })
  } finally {
    clearTimeout(late)
    signal?.removeEventListener('abort', end)
  }
}

/** OpenAI's form of an error; nothing of a text that has it not. */
function errorIn(text: string): { message?: string; code?: string | null } {
  try {
    return (JSON.parse(text) as { error?: { message?: string; code?: string | null } }).error ?? {}
  } catch {
    return {}
  }
}
