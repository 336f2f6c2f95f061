// What every request goes through before its route.

import { HttpError } from './http-errors'

/**
 * The path that routes are matched with: no /v1, no repeated slash. Python's openai makes `/v1files` of a base URL that is set without its slash
 * at the end, as `dspy.configure(arbor_api_base=...)` may have it.
 */
export function routePath(request: Request): string {
  const path = new URL(request.url).pathname.replace(/\/{2,}/g, '/')
  const version = path.match(VERSION)
  return version ? `/${version[1]}` : path
}

const VERSION = /^\/v1(?:$|\/|(?=(?:files|fine_tuning|chat|completions|models)(?:$|\/)))(.*)$/

/** A web page from elsewhere must not drive a server on this machine. Programs send no Origin. */
export function checkOrigin(request: Request): void {
  const origin = request.headers.get('origin')
  if (origin === null) return
  if (/^https?:\/\/(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/.test(origin)) return
  throw new HttpError(403, `Requests from the web page ${origin} are not answered.`, { code: 'foreign_origin' })
}
