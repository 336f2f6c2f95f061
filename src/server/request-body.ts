// Reads a request's JSON body, bounded in size, and checks it against its schema.

import { z } from 'zod'
import { nearestName } from '../errors'
import { bodyError, HttpError } from './http-errors'

export const MAX_BODY_BYTES = 32 * 1024 * 1024
/** Lists and objects inside each other: far more than any request needs, far less than a stack holds. */
const MAX_DEPTH = 256

/**
 * The body as `schema` gives it.
 * @throws HttpError 400 for text that is no JSON, 413 for a body over the limit, 422 with the path of each wrong field.
 */
export async function readBody<Schema extends z.ZodType>(request: Request, schema: Schema): Promise<z.output<Schema>> {
  return parseBody(await readText(request), schema)
}

/** A body that was read before. @throws HttpError as `readBody` */
export function parseBody<Schema extends z.ZodType>(text: string, schema: Schema): z.output<Schema> {
  refuseDeep(text)
  let value: unknown
  try {
    value = text.trim() === '' ? {} : JSON.parse(text)
  } catch (cause) {
    throw new HttpError(400, `The body is not JSON: ${(cause as Error).message}.`, { code: 'invalid_json', cause })
  }
  const result = schema.safeParse(value)
  if (!result.success) throw bodyError(result.error, (issue) => readableIssue(issue, schema))
  return result.data
}

/** Whatever is done with a body later may go into it as deep as it is. Texts, which are most of a body, are leapt over. */
function refuseDeep(text: string): void {
  let depth = 0
  for (let i = 0; i < text.length; i++) {
    const character = text.charCodeAt(i)
    if (character === QUOTE) i = endOfText(text, i)
    else if (character === BRACKET || character === BRACE) depth++
    else if (character === BRACKET + 2 || character === BRACE + 2) depth--
    if (depth > MAX_DEPTH)
      throw new HttpError(400, `The body is nested more than ${MAX_DEPTH} levels deep.`, { code: 'body_too_deep' })
  }
}

/** Where the text that begins at `start` has its closing quote: the next one with an even number of backslashes before it. */
function endOfText(text: string, start: number): number {
  for (let end = text.indexOf('"', start + 1); end >= 0; end = text.indexOf('"', end + 1)) {
    let before = end
    while (text.charCodeAt(before - 1) === BACKSLASH) before--
    if ((end - before) % 2 === 0) return end
  }
  return text.length // it has none, which is for the parser to tell
}

const QUOTE = 0x22
const BACKSLASH = 0x5c
const BRACKET = 0x5b
const BRACE = 0x7b

/** @throws HttpError 413 for a body over the limit */
export async function readText(request: Request): Promise<string> {
  const length = request.headers.get('content-length')
  if (Number(length ?? 0) > MAX_BODY_BYTES) throw tooLarge()
  if (length !== null) return request.text() // no more than that arrives, and a web stream would cost more than the rest of a request
  if (request.body === null) return ''
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of request.body as unknown as AsyncIterable<Uint8Array>) {
    size += chunk.byteLength
    if (size > MAX_BODY_BYTES) throw tooLarge()
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

function tooLarge(): HttpError {
  return new HttpError(413, `The body is larger than ${MAX_BODY_BYTES / 1024 / 1024} MB. Send fewer rollouts in one call.`, {
    code: 'body_too_large',
  })
}

/**
 * The same request, whose body ends with an error where it is too long: one that comes in chunks doesn't tell its length before.
 * @throws HttpError 413, here or from whoever reads the body (as the error's cause)
 */
export function bounded(request: Request, maxBytes: number): Request {
  const tooLong = new HttpError(413, `The body is larger than ${maxBytes / 1024 / 1024} MB.`, { code: 'body_too_large' })
  if (Number(request.headers.get('content-length') ?? 0) > maxBytes) throw tooLong
  if (request.body === null) return request
  let size = 0
  const counting = new TransformStream<Uint8Array, Uint8Array>({
    transform(chunk, controller) {
      size += chunk.byteLength
      if (size > maxBytes) controller.error(tooLong)
      else controller.enqueue(chunk)
    },
  })
  const { url, method, headers } = request
  return new Request(url, { method, headers, body: request.body.pipeThrough(counting), duplex: 'half' } as RequestInit)
}

/** zod's own words, but an unknown key is told with the nearest one that exists. */
function readableIssue(issue: z.core.$ZodIssue, schema: z.ZodType): string {
  if (issue.code !== 'unrecognized_keys') return issue.message
  const known = keysAt(schema, issue.path)
  return issue.keys
    .map((key) => {
      const nearest = nearestName(key, known)
      return `unknown key "${key}"${nearest === null ? '' : `, did you mean "${nearest}"?`}`
    })
    .join('; ')
}

/** The keys a strict object knows at `path` inside `schema`. */
function keysAt(schema: z.ZodType, path: readonly PropertyKey[]): string[] {
  let at: unknown = unwrap(schema)
  for (const part of path) {
    if (at instanceof z.ZodObject) at = unwrap(at.shape[String(part)])
    else if (at instanceof z.ZodArray) at = unwrap(at.element)
  }
  return at instanceof z.ZodObject ? Object.keys(at.shape) : []
}

function unwrap(schema: unknown): unknown {
  while (schema instanceof z.ZodOptional || schema instanceof z.ZodNullable || schema instanceof z.ZodDefault)
    schema = schema.unwrap()
  return schema
}
