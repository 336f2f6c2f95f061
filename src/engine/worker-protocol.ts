// What travels between a WorkerEngine and its worker thread. Functions and signals stay at home and travel as messages.

import {
  ArborError,
  BackendError,
  ContextWindowExceededError,
  type MemoryPart,
  ModelError,
  OptionError,
  OutOfMemoryError,
} from '../errors'
import type { Gradients, PoolMember } from './pool-member'

/** Engine methods by name, each with plain data as arguments. */
export type EngineMethod = Exclude<keyof PoolMember, 'close'>

/** Which callbacks of a generate call there are on the other side. */
export interface HeardBy {
  readonly onTokens: boolean
  readonly allowedTokens: boolean
}

/** A call of the engine. */
export interface CallMessage {
  readonly type: 'call'
  readonly id: number
  readonly method: EngineMethod
  readonly args: readonly unknown[]
}

export type ToWorker =
  | CallMessage
  /** Calls that were made together. */
  | { readonly type: 'calls'; readonly calls: readonly CallMessage[] }
  /** Ends the generate call `id`. */
  | { readonly type: 'abort'; readonly id: number }
  /** onTokens of generate call `id` answered 'stop' for one completion. */
  | { readonly type: 'stop'; readonly id: number; readonly index: number }
  /** The loss's answer to 'loss' of trainStep call `id`. */
  | { readonly type: 'gradient'; readonly id: number; readonly dLogprobs: Float32Array; readonly dEntropies?: Float32Array }
  | { readonly type: 'loss-failed'; readonly id: number; readonly message: string }
  /** The answer to 'mask' of generate call `id`; null: every token may come. */
  | { readonly type: 'allowed'; readonly id: number; readonly index: number; readonly mask: Int32Array | null }
  /** The answer to 'gradients' of trainPart call `id`. */
  | { readonly type: 'summed'; readonly id: number; readonly total: Gradients | null }
  | { readonly type: 'sum-failed'; readonly id: number; readonly message: string }
  | { readonly type: 'close' }

export type FromWorker =
  | { readonly type: 'result'; readonly id: number; readonly value: unknown }
  | { readonly type: 'error'; readonly id: number; readonly error: ErrorData }
  /** New tokens of one completion; only for calls with onTokens or allowedTokens. */
  | { readonly type: 'tokens'; readonly id: number; readonly index: number; readonly tokens: readonly number[] }
  | { readonly type: 'loss'; readonly id: number; readonly logprobs: Float32Array; readonly entropies: Float32Array }
  /** Asks for allowedTokens after the tokens sent so far. */
  | { readonly type: 'mask'; readonly id: number; readonly index: number }
  | { readonly type: 'gradients'; readonly id: number; readonly own: Gradients | null }
  | { readonly type: 'closed' }

/** An error as plain data: structured clone would drop its class and code. */
export interface ErrorData {
  readonly name: string
  readonly message: string
  readonly stack?: string
  readonly code?: string
  readonly op?: string
  readonly plan?: readonly MemoryPart[]
}

export function toErrorData(error: unknown): ErrorData {
  if (!(error instanceof Error)) return { name: 'Error', message: String(error) }
  const { name, message, stack } = error
  const code = error instanceof ArborError ? { code: error.code } : {}
  const op = error instanceof BackendError ? { op: error.op } : {}
  const plan = error instanceof OutOfMemoryError && error.plan ? { plan: error.plan } : {}
  return { name, message, ...(stack ? { stack } : {}), ...code, ...op, ...plan }
}

/** The error again, of the class it had; its stack is the worker's. */
export function fromErrorData(data: ErrorData): Error {
  const error = rebuild(data)
  if (data.stack) error.stack = data.stack
  return error
}

function rebuild({ name, message, code, op = 'unknown', plan }: ErrorData): Error {
  if (name === OutOfMemoryError.name) return new OutOfMemoryError(message, { op, ...(plan && { plan }) })
  if (name === BackendError.name) return new BackendError(message, { op })
  if (name === ContextWindowExceededError.name) return new ContextWindowExceededError(message)
  if (name === ModelError.name) return new ModelError(message)
  if (name === OptionError.name) return new OptionError(message)
  if (code !== undefined) return new ArborError(message, { code })
  return new Error(message)
}
