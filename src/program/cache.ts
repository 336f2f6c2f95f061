// Answers of language models on disk: a file for each request, named by its content. Several processes may share the folder.

import { createHash, randomUUID } from 'node:crypto'
import { mkdir, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import type { LMResponse } from './base-lm'

export interface CacheOptions {
  /** $ARBOR_HOME/cache, else ~/.arbor/cache. */
  readonly folder?: string
  /** When the files hold more than this, those used longest ago go. */
  readonly maxBytes?: number
}

const GIBIBYTE = 2 ** 30
/** After a clean-up this share of `maxBytes` is used at most, so that not every write cleans up. */
const KEPT_SHARE = 0.9
/** Written bytes after which the folder is measured, as a share of `maxBytes`. */
const MEASURE_SHARE = 0.05
/** A temporary file that nobody renamed for so long was left by a process that ended. */
const ORPHAN_MS = 60_000

/** The key of a request: everything that shapes the answer, in whatever order its parts were given. */
export function cacheKey(request: Readonly<Record<string, unknown>>): string {
  return createHash('sha256')
    .update(JSON.stringify(sorted(request)))
    .digest('hex')
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted)
  if (typeof value !== 'object' || value === null) return value
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
  return Object.fromEntries(entries.map(([key, item]) => [key, sorted(item)]))
}

/** Answers in a folder, a file for each request; the oldest go when it is full. */
export class LMCache {
  readonly folder: string
  readonly maxBytes: number
  /** Bytes written since the folder was last measured; at first it was never. */
  #unmeasured = Number.POSITIVE_INFINITY

  constructor({ folder, maxBytes = GIBIBYTE }: CacheOptions = {}) {
    this.folder = folder ?? join(process.env['ARBOR_HOME'] ?? join(homedir(), '.arbor'), 'cache')
    this.maxBytes = maxBytes
  }

  /** The answer kept for a key; null when there is none, or its file can't be read: then it goes. */
  async get(key: string): Promise<LMResponse | null> {
    const path = this.#pathOf(key)
    let text: string
    try {
      text = await readFile(path, 'utf8')
    } catch {
      return null // nothing kept, or out of reach: the model is asked
    }
    const response = readResponse(text)
    const now = new Date()
    await (response ? utimes(path, now, now) : rm(path, { force: true })).catch(() => {}) // another process may have removed it
    return response
  }

  /** Keeps an answer: whole, or not at all. Answers whether it could. */
  async set(key: string, response: LMResponse): Promise<boolean> {
    const path = this.#pathOf(key)
    const temporary = `${path}.${process.pid}.${randomUUID()}.tmp`
    const text = JSON.stringify(response)
    try {
      await mkdir(dirname(path), { recursive: true })
      await writeFile(temporary, text)
      await rename(temporary, path) // readers see the old file or the new one
      await this.#measure(Buffer.byteLength(text))
      return true
    } catch {
      await rm(temporary, { force: true }).catch(() => {})
      return false
    }
  }

  /** Forgets everything. */
  async clear(): Promise<void> {
    await rm(this.folder, { recursive: true, force: true })
  }

  #pathOf(key: string): string {
    return join(this.folder, key.slice(0, 2), `${key}.json`)
  }

  async #measure(written: number): Promise<void> {
    this.#unmeasured += written
    if (this.#unmeasured < this.maxBytes * MEASURE_SHARE) return
    this.#unmeasured = 0
    const files = await this.#files()
    let bytes = files.reduce((sum, file) => sum + file.size, 0)
    if (bytes <= this.maxBytes) return
    for (const file of files.sort((a, b) => a.usedAt - b.usedAt)) {
      if (bytes <= this.maxBytes * KEPT_SHARE) return
      await rm(file.path, { force: true })
      bytes -= file.size
    }
  }

  /** What is kept; orphans go on the way. */
  async #files(): Promise<{ path: string; size: number; usedAt: number }[]> {
    const found: { path: string; size: number; usedAt: number }[] = []
    for (const entry of await readdir(this.folder, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue
      const path = join(entry.parentPath, entry.name)
      const about = await stat(path).catch(() => null) // removed by another process meanwhile
      if (!about) continue
      if (!entry.name.endsWith('.tmp')) found.push({ path, size: about.size, usedAt: about.mtimeMs })
      else if (Date.now() - about.mtimeMs > ORPHAN_MS) await rm(path, { force: true })
    }
    return found
  }
}

function readResponse(text: string): LMResponse | null {
  try {
    const { id, model, outputs, usage } = JSON.parse(text) as LMResponse
    const whole = Array.isArray(outputs) && outputs.length > 0 && outputs.every((output) => typeof output.text === 'string')
    return whole && typeof usage === 'object' ? { id, model, outputs, usage } : null
  } catch {
    return null
  }
}

let cache: LMCache | null | undefined

/** The cache in use; null when it is off. */
export function currentCache(): LMCache | null {
  return cache === undefined ? (cache = new LMCache()) : cache
}

/** Moves, bounds or (with null) switches off the cache of all language models; `{}` is the start. */
export function configureCache(options: CacheOptions | null): LMCache | null {
  cache = options && new LMCache(options)
  return cache
}
