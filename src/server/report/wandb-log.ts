// The transaction log of a W&B run (run-ID.wandb): a header, then protobuf records in LevelDB's blocks, checked by plain CRC-32.

import { appendFileSync, writeFileSync } from 'node:fs'
import { replaceFile } from '../../engine/whole-file'
import { crc32 } from './checksums'

/** ":W&B", a magic number (0xBEE1) and the version 0. The blocks count these bytes. */
const FILE_HEADER = Buffer.from([0x3a, 0x57, 0x26, 0x42, 0xe1, 0xbe, 0x00])
const BLOCK = 32_768
const CHUNK_HEADER = 7 // checksum u32, length u16, type u8
const FULL = 1
const FIRST = 2
const MIDDLE = 3
const LAST = 4

export class WandbLog {
  private constructor(
    private readonly path: string,
    private offset: number,
  ) {}

  /** Writes a log of these records; whatever was at `path` is replaced whole. */
  static create(path: string, records: Iterable<Buffer>): WandbLog {
    const log = new WandbLog(path, FILE_HEADER.length)
    const parts: Buffer[] = [FILE_HEADER]
    for (const record of records) parts.push(log.frame(record))
    replaceFile(path, (temporary) => writeFileSync(temporary, Buffer.concat(parts)))
    return log
  }

  /** Each record is appended whole, in one write. */
  append(records: readonly Buffer[]): void {
    const from = this.offset
    try {
      appendFileSync(this.path, Buffer.concat(records.map((record) => this.frame(record))))
    } catch (error) {
      this.offset = from
      throw error
    }
  }

  /** The record cut to the blocks that it falls into; the offset moves behind it. */
  private frame(record: Buffer): Buffer {
    const parts: Buffer[] = []
    const put = (part: Buffer) => {
      parts.push(part)
      this.offset += part.length
    }
    let at = 0
    for (let done = false; !done; ) {
      const room = BLOCK - (this.offset % BLOCK)
      if (room < CHUNK_HEADER) {
        put(Buffer.alloc(room))
        continue
      }
      const end = Math.min(record.length, at + room - CHUNK_HEADER)
      const begun = parts.some(({ length }) => length >= CHUNK_HEADER)
      done = end === record.length
      put(chunk(done ? (begun ? LAST : FULL) : begun ? MIDDLE : FIRST, record.subarray(at, end)))
      at = end
    }
    return Buffer.concat(parts)
  }
}

function chunk(type: number, payload: Buffer): Buffer {
  const bytes = Buffer.alloc(CHUNK_HEADER + payload.length)
  bytes[6] = type
  payload.copy(bytes, CHUNK_HEADER)
  bytes.writeUInt32LE(crc32(bytes.subarray(6)), 0)
  bytes.writeUInt16LE(payload.length, 4)
  return bytes
}
