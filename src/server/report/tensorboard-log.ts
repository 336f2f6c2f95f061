// A TensorBoard event file: protobuf events, each behind its length, both checked by masked CRC-32C.

import { appendFileSync, writeFileSync } from 'node:fs'
import { maskedCrc32c } from './checksums'
import { bytes, double, float, message, varint } from './protobuf'

const STRING = 7 // DT_STRING
const FILE_VERSION = 'brain.Event:2'
const STARTED = 1 // SessionLog.START

export class EventFile {
  private constructor(private readonly path: string) {}

  /** A new file. Whoever reads it after another of the same run is told to forget that one's numbers. */
  static create(path: string, events: readonly Buffer[]): EventFile {
    const now = Date.now() / 1000
    const opening = [event(now, 0, bytes(3, FILE_VERSION)), event(now, 0, message(7, varint(1, STARTED)))]
    writeFileSync(path, Buffer.concat([...opening, ...events].map(framed)), { flag: 'wx' })
    return new EventFile(path)
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
  const head = Buffer.alloc(12)
  head.writeBigUInt64LE(BigInt(data.length), 0)
  head.writeUInt32LE(maskedCrc32c(head.subarray(0, 8)), 8)
  const tail = Buffer.alloc(4)
  tail.writeUInt32LE(maskedCrc32c(data), 0)
  return Buffer.concat([head, data, tail])
}
