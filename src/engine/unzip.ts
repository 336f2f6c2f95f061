// Takes one file out of a zip archive (a Python wheel is one). Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT

import { createReadStream } from 'node:fs'
import type { Readable } from 'node:stream'
import { createInflateRaw } from 'node:zlib'
import { ModelError } from '../errors'
import { FileReader } from './file-reader'

const END_OF_DIRECTORY = 0x06054b50
const DIRECTORY_ENTRY = 0x02014b50
const LOCAL_HEADER = 0x04034b50
const STORED = 0
const DEFLATED = 8

export interface ZipEntry {
  readonly name: string
  readonly size: number
  readonly method: number
  readonly compressedSize: number
  readonly headerOffset: number
}

/** The archive's directory. Archives of 4 GiB and more (zip64) are refused. */
export function zipEntries(path: string): ZipEntry[] {
  const file = new FileReader(path)
  try {
    const tailSize = Math.min(file.size, 22 + 65535) // the record, and the longest comment that may follow it
    const tail = Buffer.alloc(tailSize)
    file.read(tail, file.size - tailSize)
    let at = tailSize - 22
    while (at >= 0 && tail.readUInt32LE(at) !== END_OF_DIRECTORY) at--
    if (at < 0) throw new ModelError(`${path}: not a whole zip archive (it has no directory).`)
    const count = tail.readUInt16LE(at + 10)
    const directory = Buffer.alloc(tail.readUInt32LE(at + 12))
    file.read(directory, tail.readUInt32LE(at + 16))
    return parseDirectory(directory, count, path)
  } finally {
    file.close()
  }
}

/** The entry's bytes, unpacked as they are read. */
export function openZipEntry(path: string, entry: ZipEntry): Readable {
  const file = new FileReader(path)
  const header = Buffer.alloc(30)
  try {
    file.read(header, entry.headerOffset)
  } finally {
    file.close()
  }
  if (header.readUInt32LE(0) !== LOCAL_HEADER) throw new ModelError(`${path}: the entry "${entry.name}" is damaged.`)
  const start = entry.headerOffset + 30 + header.readUInt16LE(26) + header.readUInt16LE(28)
  const packed = createReadStream(path, { start, end: start + entry.compressedSize - 1 })
  if (entry.method === STORED) return packed
  if (entry.method !== DEFLATED)
    throw new ModelError(
      `${path}: the entry "${entry.name}" is packed by method ${entry.method}; stored (0) and deflate (8) are read.`,
    )
  const inflate = createInflateRaw()
  packed.on('error', (error) => inflate.destroy(error))
  return packed.pipe(inflate)
}

function parseDirectory(directory: Buffer, count: number, path: string): ZipEntry[] {
  const entries: ZipEntry[] = []
  let at = 0
  for (let i = 0; i < count; i++) {
    if (at + 46 > directory.length || directory.readUInt32LE(at) !== DIRECTORY_ENTRY)
      throw new ModelError(`${path}: the zip directory is damaged at entry ${i}.`)
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((offset) => directory.readUInt16LE(at + offset)) as [
      number,
      number,
      number,
    ]
    entries.push({
      name: directory.toString('utf8', at + 46, at + 46 + nameLength),
      method: directory.readUInt16LE(at + 10),
      compressedSize: directory.readUInt32LE(at + 20),
      size: directory.readUInt32LE(at + 24),
      headerOffset: directory.readUInt32LE(at + 42),
    })
    at += 46 + nameLength + extraLength + commentLength
  }
  return entries
}
