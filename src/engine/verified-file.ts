// Puts a stream of bytes into a file and only gives the file its name when size and checksum are right: there is never half a file.

import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { open, rename, rm, stat } from 'node:fs/promises'
import { basename } from 'node:path'
import { ModelError } from '../errors'

/** What a file must be. `git-sha1` is git's blob id, the only checksum that the hub knows for its small files. */
export interface Expected {
  readonly size: number
  readonly checksum: { readonly kind: 'sha256' | 'git-sha1'; readonly value: string }
}

/** A transfer that brings no byte for this long has died. */
const IDLE_MS = 60_000

/** Writes `stream` to `path`; `onBytes` hears the size of every piece. Throws ModelError when what came is not what was expected. */
export async function writeVerified(
  path: string,
  stream: AsyncIterable<Uint8Array>,
  options: { expected: Expected; onBytes?: (bytes: number) => void },
): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`
  const check = checker(options.expected)
  const file = await open(temporary, 'w')
  try {
    for await (const piece of withIdleLimit(stream, basename(path))) {
      check.update(piece)
      await file.writeFile(piece)
      options.onBytes?.(piece.byteLength)
    }
    const fault = check.fault()
    if (fault) throw new ModelError(`${basename(path)}: ${fault} The transfer was damaged; try again.`)
    await file.sync()
    await file.close()
    await rename(temporary, path)
  } catch (error) {
    await file.close().catch(() => undefined) // closed already when the rename failed
    await rm(temporary, { force: true })
    throw error
  }
}

/** True when the file is there and has the expected size and checksum. */
export async function isVerified(path: string, expected: Expected): Promise<boolean> {
  const found = await stat(path).catch(() => null)
  if (found?.size !== expected.size) return false
  const check = checker(expected)
  for await (const piece of createReadStream(path)) check.update(piece as Uint8Array)
  return check.fault() === null
}

function checker(expected: Expected): { update(piece: Uint8Array): void; fault(): string | null } {
  const { kind, value } = expected.checksum
  const hash = createHash(kind === 'sha256' ? 'sha256' : 'sha1')
  if (kind === 'git-sha1') hash.update(`blob ${expected.size}\0`)
  let size = 0
  return {
    update: (piece) => {
      size += piece.byteLength
      hash.update(piece)
    },
    fault: () => {
      if (size !== expected.size) return `${size} bytes came, ${expected.size} were expected.`
      const got = hash.digest('hex')
      return got === value ? null : `its ${kind} is ${got}, expected ${value}.`
    },
  }
}

/** Passes the pieces on; ends with a ModelError when none comes for a while, and lets go of the stream in every case. */
async function* withIdleLimit(stream: AsyncIterable<Uint8Array>, name: string): AsyncGenerator<Uint8Array> {
  const iterator = stream[Symbol.asyncIterator]()
  let timer: NodeJS.Timeout | undefined
  try {
    for (;;) {
      const idle = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new ModelError(`${name}: no data for ${IDLE_MS / 1000} s, gave up.`)), IDLE_MS)
      })
      const next = await Promise.race([iterator.next(), idle])
      clearTimeout(timer)
      if (next.done) return
      yield next.value
    }
  } finally {
    clearTimeout(timer)
    iterator.return?.().catch(() => undefined) // the stream may have failed already, which is known by now
  }
}
