// The page of the server: files of this package, its scripts compiled for browsers, sent with headers that let nothing else run in it.

import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { basename, extname, join } from 'node:path'
import { packageRoot } from '../engine/package-root'
import { HttpError } from './http-errors'

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
}

/** Scripts and styles are the package's own, data comes from this server, and only pages of this machine (JupyterLab) may frame it. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'self' http://localhost:* http://127.0.0.1:*",
  "require-trusted-types-for 'script'",
].join('; ')

/** Of every page and of what belongs to it. */
export const PAGE_HEADERS = {
  'content-security-policy': POLICY,
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  'cache-control': 'no-cache', // asked for again each time, answered with 304 while it is the same
}

interface PageFile {
  readonly bytes: Buffer
  readonly type: string
  readonly tag: string
}

/** The page's files by name, read once. */
export class PageFiles {
  private readonly files: ReadonlyMap<string, PageFile>

  constructor(root = packageRoot()) {
    const scripts = join(root, 'dist', 'web', 'server', 'page')
    const compiled = existsSync(scripts) ? readdirSync(scripts).filter((name) => /^[a-z-]+\.js$/.test(name)) : []
    const paths = [
      join(root, 'src', 'server', 'page', 'index.html'),
      join(root, 'src', 'server', 'page', 'page.css'),
      join(root, 'src', 'server', 'page', 'docs.css'),
      join(root, 'kernels', 'jupyter', 'logo-svg.svg'),
      ...compiled.map((name) => join(scripts, name)),
    ]
    this.files = new Map(paths.map((path) => [basename(path), readPageFile(path)]))
  }

  /** @param known the tag of the copy that the browser has. @throws HttpError 404 */
  response(name: string, known: string | undefined): Response {
    const file = this.files.get(name)
    if (!file) throw new HttpError(404, `The page has no file "${name}".`, { code: 'not_found' })
    const headers = { ...PAGE_HEADERS, 'content-type': file.type, etag: file.tag, vary: 'accept' }
    if (known === file.tag) return new Response(null, { status: 304, headers })
    return new Response(new Uint8Array(file.bytes), { headers })
  }
}

function readPageFile(path: string): PageFile {
  const bytes = readFileSync(path)
  const tag = `"${createHash('sha256').update(bytes).digest('hex').slice(0, 20)}"`
  return { bytes, tag, type: TYPES[extname(path)]! }
}
