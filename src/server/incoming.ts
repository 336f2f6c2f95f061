// What every request goes through before its route.

import { hostname } from 'node:os'
import { HttpError } from './http-errors'

/**
 * The path that routes are matched with: no /v1, no repeated slash. Python's openai makes `/v1files` of a base URL that is set without its slash
 * at the end, as `dspy.configure(arbor_api_base=...)` may have it.
 */
export function routePath(request: Request): string {
  const path = urlOf(request).pathname.replace(/\/{2,}/g, '/')
  const version = path.match(VERSION)
  return version ? `/${version[1]}` : path
}

/** Requests of a step go to one address, and each is asked for it twice: the latest is kept. */
let latest = { url: '', parts: new URL('http://localhost') }

function urlOf({ url }: Request): URL {
  if (latest.url !== url) latest = { url, parts: new URL(url) }
  return latest.parts
}

const VERSION = /^\/v1(?:$|\/|(?=(?:files|fine_tuning|chat|completions|models)(?:$|\/)))(.*)$/

/** A web page from elsewhere must not drive a server on this machine. Programs send no Origin. */
export function checkOrigin(request: Request): void {
  const origin = request.headers.get('origin')
  if (origin === null) return
  if (/^https?:\/\/(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/.test(origin)) return
  throw new HttpError(403, `Requests from the web page ${origin} are not answered.`, { code: 'foreign_origin' })
}

const LOOPBACK = /^(localhost|127(\.\d+){3}|::1)$/
/** Names that no page from elsewhere can have: of this machine or its network, or an address. */
const NEAR = /^([^.]+|[\d.]+|\[[\da-f:.]+\]|.*\.(localhost|local|internal))$/i

/**
 * A page from elsewhere can have its own name lead to this machine and then read everything here as if it came from there. So a server that is
 * for this machine alone (`boundTo` is a loopback address) answers only who calls it by a name of this machine.
 * ARBOR_ALLOWED_HOSTS lists further names, with commas: of a proxy in front of it.
 */
export function checkHost(request: Request, boundTo: string, allowed = process.env['ARBOR_ALLOWED_HOSTS'] ?? ''): void {
  const name = urlOf(request).hostname.toLowerCase()
  if (!LOOPBACK.test(boundTo) || NEAR.test(name) || name === hostname().toLowerCase()) return
  if (
    allowed
      .toLowerCase()
      .split(/[\s,]+/)
      .includes(name)
  )
    return
  throw new HttpError(
    403,
    `This server is for this machine alone, and "${name}" is no name of it. Behind a proxy of that name, start it with ARBOR_ALLOWED_HOSTS=${name}.`,
    { code: 'foreign_host' },
  )
}
