// The bytes of both log formats. What the real readers make of them stands in test/peers/reports.test.ts.

import { mkdtempSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { crc32, crc32c, maskedCrc32c } from './checksums'
import { bytes, double, float, message, texts, varint } from './protobuf'
import { EventFile, scalars } from './tensorboard-log'
import { WandbLog } from './wandb-log'
import { valueJson } from './wandb-records'

const folder = () => mkdtempSync(join(tmpdir(), 'arbor-report-'))

describe('checksums', () => {
  it('give the published check values', () => {
    const check = Buffer.from('123456789')
    expect(crc32(check)).toBe(0xcbf43926)
    expect(crc32c(check)).toBe(0xe3069283)
    expect(crc32c(Buffer.alloc(32))).toBe(0x8a9136aa) // RFC 3720, B.4
  })

  it('are masked as in LevelDB', () => {
    const crc = crc32c(Buffer.from('foo'))
    const unmasked = (((maskedCrc32c(Buffer.from('foo')) - 0xa282ead8) >>> 0) ^ 0) >>> 0
    expect(((unmasked >>> 17) | (unmasked << 15)) >>> 0).toBe(crc)
  })
})

describe('protobuf fields', () => {
  it('are those of the encoding guide', () => {
    expect(varint(1, 150).toString('hex')).toBe('089601')
    expect(bytes(2, 'testing').toString('hex')).toBe('120774657374696e67')
    expect(message(3, varint(1, 150)).toString('hex')).toBe('1a03089601')
    expect(varint(1, -1).toString('hex')).toBe('08ffffffffffffffffff01')
    expect(varint(2, 2n ** 40n).toString('hex')).toBe('10808080808020')
    expect(double(1, 1).toString('hex')).toBe('09000000000000f03f')
    expect(float(2, 1).toString('hex')).toBe('150000803f')
    expect(bytes(17, 'é').toString('hex')).toBe('8a0102c3a9')
    expect(texts(1, ['a', 'b']).toString('hex')).toBe('0a01610a0162')
  })

  it('hold numbers that JSON has none for as wandb reads them', () => {
    expect([Number.NaN, Infinity, -Infinity, 0.5, 'a', null].map(valueJson)).toEqual([
      'NaN',
      'Infinity',
      '-Infinity',
      '0.5',
      '"a"',
      'null',
    ])
  })
})

describe('a W&B log', () => {
  it('gives every record back, however little room its block has left', () => {
    // The second record begins with `left` bytes before the end of the first block: 7 of header, 7 of the first record's frame.
    for (const left of [0, 1, 6, 7, 8, 100]) {
      const records = [32_768 - 14 - left, 20, 100_000, 0, 5].map((length, i) => Buffer.alloc(length, i + 1))
      const path = join(folder(), 'run.wandb')
      WandbLog.create(path, records.slice(0, 1)).append(records.slice(1))
      const read = readWandbLog(readFileSync(path))
      expect(read.map((record) => record.length)).toEqual(records.map((record) => record.length))
      expect(Buffer.concat(read).equals(Buffer.concat(records))).toBe(true)
    }
  })
})

describe('an event file', () => {
  it('holds its version, a start, and every event behind it, whole', () => {
    const path = join(folder(), 'events')
    EventFile.create(path, [scalars(1, 1, { a: 1 })]).append([scalars(2, 2, { a: 2 }), scalars(3, 2 ** 40, { a: Number.NaN })])
    const events = readEvents(readFileSync(path))
    expect(events[0]!.subarray(11).toString('latin1')).toBe('\x1a\x0dbrain.Event:2')
    expect(events[1]!.subarray(-4).toString('hex')).toBe('3a020801') // session_log { status: START }
    expect(events.slice(2)).toEqual([scalars(1, 1, { a: 1 }), scalars(2, 2, { a: 2 }), scalars(3, 2 ** 40, { a: Number.NaN })])
    expect(() => EventFile.create(path, [])).toThrow('EEXIST')
  })
})

/** LevelDB's log format, read independently of the writer. */
function readWandbLog(file: Buffer): Buffer[] {
  const records: Buffer[] = []
  let parts: Buffer[] = []
  for (let at = 7; at < file.length; ) {
    const room = 32_768 - (at % 32_768)
    if (room < 7) {
      expect(file.subarray(at, at + room).every((byte) => byte === 0)).toBe(true)
      at += room
      continue
    }
    const length = file.readUInt16LE(at + 4)
    const type = file[at + 6]!
    expect(length).toBeLessThanOrEqual(room - 7)
    expect(file.readUInt32LE(at)).toBe(crc32(file.subarray(at + 6, at + 7 + length)))
    expect(type === 1 || type === 2).toBe(parts.length === 0)
    parts.push(file.subarray(at + 7, at + 7 + length))
    if (type === 1 || type === 4) {
      records.push(Buffer.concat(parts))
      parts = []
    }
    at += 7 + length
  }
  return records
}

function readEvents(file: Buffer): Buffer[] {
  const events: Buffer[] = []
  for (let at = 0; at < file.length; ) {
    const length = Number(file.readBigUInt64LE(at))
    const data = file.subarray(at + 12, at + 12 + length)
    expect(file.readUInt32LE(at + 12 + length)).toBe(maskedCrc32c(data))
    events.push(data)
    at += 16 + length
  }
  return events
}
