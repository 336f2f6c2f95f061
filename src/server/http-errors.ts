// The one place where errors become responses. Routes throw; nothing else writes an error body.

import type { z } from 'zod'
import { ArborError, ContextWindowExceededError, ModelError, OptionError, OutOfMemoryError } from '../errors'

/** An error with the HTTP status it means. `extra` fields stand beside `error` and `detail` in the body. */
export class HttpError extends ArborError {
  readonly status: number
  readonly param: string | null
  readonly extra: Readonly<Record<string, unknown>>
  constructor(
    status: number,
    message: string,
    options: { code?: string; param?: string; extra?: Readonly<Record<string, unknown>>; cause?: unknown } = {},
  ) {
    super(message, { code: options.code ?? 'bad_request', cause: options.cause })
    this.status = status
    this.param = options.param ?? null
    this.extra = options.extra ?? {}
  }
}

/** A body that does not fit its schema: one entry for each wrong field. */
export class BodyError extends HttpError {
  readonly detail: readonly { type: string; loc: readonly (string | number)[]; msg: string }[]
  constructor(detail: BodyError['detail']) {
    const first = detail[0]!
    const where = first.loc.slice(1).join('.')
    super(422, `${where === '' ? '' : `${where}: `}${detail.map((entry) => entry.msg).join(' · ')}`, {
      code: 'invalid_body',
      ...(where === '' ? {} : { param: where }),
    })
    this.detail = detail
  }
}

/** Any error as a response: OpenAI's `error` object and FastAPI's `detail`, because clients of both kinds read it. */
export function errorResponse(error: unknown, requestId: string): Response {
  const { status, body } = errorBody(error, requestId)
  const statusText = reasonPhrase(String((body['error'] as { message: string }).message))
  return new Response(JSON.stringify(body), { status, statusText, headers: { 'content-type': 'application/json' } })
}

/** A status line must stay short. */
const LONGEST_REASON = 400

/** The message as the status line's reason: Python's arbor-ai shows nothing but that line when a call fails (requests' raise_for_status). */
function reasonPhrase(message: string): string {
  const line = message.replace(/\s+/g, ' ').replace(/[^\x20-\x7e]/g, '?')
  return line.length > LONGEST_REASON ? `${line.slice(0, LONGEST_REASON - 4)} ...` : line
}

/** The same for a stream that has begun, where a status can no longer be sent. */
export function errorBody(error: unknown, requestId: string): { status: number; body: Record<string, unknown> } {
  const { status, message, type, code, param, detail, extra } = describe(error, requestId)
  return { status, body: { error: { message, type, param, code }, detail: detail ?? message, ...extra } }
}

interface Described {
  readonly status: number
  readonly message: string
  readonly type: string
  readonly code: string
  readonly param: string | null
  readonly detail?: unknown
  readonly extra?: Readonly<Record<string, unknown>>
}

/** Codes of errors that say what is wrong with a request. */
const REQUESTS_FAULT = ['chat_template_error', 'grammar_too_large']

function describe(error: unknown, requestId: string): Described {
  const invalid = { type: 'invalid_request_error', param: null }
  if (error instanceof HttpError) {
    const type = error.status >= 500 ? 'server_error' : 'invalid_request_error'
    const detail = error instanceof BodyError ? error.detail : error.message
    return {
      status: error.status,
      message: error.message,
      type,
      code: error.code,
      param: error.param,
      detail,
      extra: error.extra,
    }
  }
  if (error instanceof ContextWindowExceededError)
    return { ...invalid, status: 400, message: error.message, code: error.code, param: 'messages' }
  if (
    error instanceof OptionError ||
    error instanceof ModelError ||
    (error instanceof ArborError && REQUESTS_FAULT.includes(error.code))
  )
    return { ...invalid, status: 400, message: error.message, code: error.code }
  // A job was cancelled while a request waited for its turn.
  if (error instanceof ArborError && error.code === 'unknown_policy')
    return { ...invalid, status: 404, message: error.message, code: 'model_not_found', param: 'model' }
  if (error instanceof OutOfMemoryError) {
    const extra = error.plan ? { extra: { memory: error.plan } } : {}
    return { status: 507, message: error.message, type: 'server_error', code: error.code, param: null, ...extra }
  }
  const text = error instanceof Error ? error.message : String(error)
  const code = error instanceof ArborError ? error.code : 'internal_error'
  return { status: 500, message: `${text} (request ${requestId})`, type: 'server_error', code, param: null }
}

/** zod's issues in FastAPI's shape; unknown keys are named one by one. */
export function bodyError(error: z.ZodError, message: (issue: z.core.$ZodIssue) => string = (issue) => issue.message): BodyError {
  return new BodyError(
    error.issues.map((issue) => ({ type: issue.code, loc: ['body', ...issue.path.map(locPart)], msg: message(issue) })),
  )
}

function locPart(part: PropertyKey): string | number {
  return typeof part === 'number' ? part : String(part)
}
