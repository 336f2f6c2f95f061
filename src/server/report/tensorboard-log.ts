// A TensorBoard event file: protobuf events, each behind its length, both checked by masked CRC-32C.

import { appendFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { maskedCrc32c } from './checksums'
import { bytes, double, float, message, varint } from './protobuf'

const STRING = 7 // DT_STRING
const LENGTH_BYTES = 12 // length u64, its checksum u32
const FILE_VERSION = 'brain.Event:2'
const STARTED = 1 // SessionLog.START

export class EventFile {
  private constructor(private readonly path: string) {}

  static create(path: string): EventFile {
    const file = new EventFile(path)
    writeFileSync(path, framed(event(Date.now() / 1000, 0, bytes(3, FILE_VERSION))), { flag: 'wx' })
    return file
  }

  /**
   * Goes on with a file, behind its last whole event: a crash may have left half of one. Readers forget what the file holds from step
   * `next` on.
   */
  static resume(path: string, next: number): EventFile {
    truncateSync(path, wholeLength(readFileSync(path)))
    const file = new EventFile(path)
    file.append([event(Date.now() / 1000, next, message(7, varint(1, STARTED)))])
    return file
  }

  append(events: readonly Buffer[]): void {
    appendFileSync(this.path, Buffer.concat(events.map(framed)))
  }
}

/** The numbers of a step; TensorBoard knows them as scalars by their form. */
export function scalars(time: number, step: number, values: Readonly<Record<string, number>>): Buffer {
  const all = Object.entries(values).map(([tag, value]) => message(1, bytes(1, tag), float(2, value)))
  return event(time, step, message(5, ...all))
}

/** Markdown, under the tag "NAME/text_summary". */
export function text(time: number, step: number, name: string, markdown: string): Buffer {
  const plugin = message(9, message(1, bytes(1, 'text')))
  const shape = message(2, message(2, varint(1, 1)))
  const tensor = message(8, varint(1, STRING), shape, bytes(8, markdown))
  return event(time, step, message(5, message(1, bytes(1, `${name}/text_summary`), plugin, tensor)))
}

function event(time: number, step: number, what: Buffer): Buffer {
  return Buffer.concat([double(1, time), varint(2, step), what])
}

function framed(data: Buffer): Buffer {
  const head = Buffer.alloc(LENGTH_BYTES)
  head.writeBigUInt64LE(BigInt(data.length), 0)
  head.writeUInt32LE(maskedCrc32c(head.subarray(0, 8)), 8)
  const tail = Buffer.alloc(4)
  tail.writeUInt32LE(maskedCrc32c(data), 0)
  return Buffer.concat([head, data, tail])
}

/** Bytes up to the end of the last event that is whole. */
function wholeLength(file: Buffer): number {
  let at = 0
  while (at + LENGTH_BYTES <= file.length) {
    const length = Number(file.readBigUInt64LE(at))
    const end = at + LENGTH_BYTES + length + 4
    const headIsWhole = file.readUInt32LE(at + 8) === maskedCrc32c(file.subarray(at, at + 8))
    if (!headIsWhole || end > file.length) break
    if (file.readUInt32LE(end - 4) !== maskedCrc32c(file.subarray(at + LENGTH_BYTES, end - 4))) break
    at = end
  }
  return at
}
