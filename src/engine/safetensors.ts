// The safetensors format: 8 bytes of header length, a JSON header, then the tensors' bytes. Tensors are read only when asked for.
// Format: https://github.com/huggingface/safetensors#format

import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { ModelError, nearestName } from '../errors'
import { bf16ToFloat32, FileReader, f16ToFloat32, float32ToBf16, float32ToF16 } from './file-reader'
import type { WeightFile } from './weights'

/** The format's own limit on its header. */
const MAX_HEADER_BYTES = 100_000_000
const DTYPE_BYTES: Readonly<Record<string, number>> = { F32: 4, F16: 2, BF16: 2 }
const ENCODERS: Readonly<Record<SafetensorsType, (values: Float32Array) => Float32Array | Uint16Array>> = {
  F32: (values) => values,
  BF16: float32ToBf16,
  F16: float32ToF16,
}

interface Entry {
  readonly dtype: string
  readonly shape: readonly number[]
  readonly offset: number // from the start of the file
  readonly length: number // in bytes
}

/** A safetensors file, with the free-form strings of its header. */
export interface SafetensorsFile extends WeightFile {
  readonly metadata: Readonly<Record<string, string>>
}

export interface HostTensor {
  readonly shape: readonly number[]
  /** Read once, when its turn to be written comes: a getter keeps a large model off the memory. */
  readonly data: Float32Array
}

export type SafetensorsType = 'F32' | 'BF16' | 'F16'

/**
 * Opens one .safetensors file (F32, F16 and BF16 tensors; all are read as f32).
 * Throws ModelError when the header is not sound or the file is shorter than its header promises.
 */
export function readSafetensors(path: string): SafetensorsFile {
  const file = new FileReader(path)
  try {
    const { entries, metadata } = readHeader(file)
    return {
      metadata,
      names: [...entries.keys()],
      has: (name) => entries.has(name),
      shape: (name) => find(entries, name, path).shape,
      read: (name) => readTensor(file, name, find(entries, name, path)),
      close: () => file.close(),
    }
  } catch (error) {
    file.close()
    throw error
  }
}

/** Opens a folder's weights: model.safetensors, or the shards that model.safetensors.index.json lists. */
export function readSafetensorsFolder(folder: string): WeightFile {
  const single = join(folder, 'model.safetensors')
  const index = join(folder, 'model.safetensors.index.json')
  if (existsSync(single) || !existsSync(index)) return readSafetensors(single)
  const map = parseJson(readFileSync(index, 'utf8'), index)['weight_map'] as Record<string, string> | undefined
  if (typeof map !== 'object' || map === null) throw new ModelError(`${index}: has no "weight_map".`)
  const shards = new Map<string, SafetensorsFile>()
  const close = () => {
    for (const shard of shards.values()) shard.close()
  }
  try {
    for (const shard of new Set(Object.values(map))) shards.set(shard, readSafetensors(join(dirname(index), shard)))
  } catch (error) {
    close()
    throw error
  }
  const names = Object.keys(map)
  const shardOf = (name: string): SafetensorsFile => {
    const shard = Object.hasOwn(map, name) ? shards.get(map[name]!) : undefined
    if (!shard) throw missing(name, names, index)
    return shard
  }
  return {
    names,
    has: (name) => Object.hasOwn(map, name),
    shape: (name) => shardOf(name).shape(name),
    read: (name) => shardOf(name).read(name),
    close,
  }
}

export interface WriteOptions {
  /** BF16 and F16 round to the nearest, a tie to the even one; default F32. */
  readonly dtype?: SafetensorsType
}

/** Writes tensors, in the map's order, under a temporary name and renames it: a reader never sees half a file. */
export function writeSafetensors(
  path: string,
  tensors: ReadonlyMap<string, HostTensor>,
  metadata: Readonly<Record<string, string>> = {},
  { dtype = 'F32' }: WriteOptions = {},
): void {
  const temporary = `${path}.${process.pid}.tmp`
  const fd = openSync(temporary, 'w')
  try {
    writeAll(fd, encodeHeader(tensors, { metadata, dtype }))
    for (const [name, tensor] of tensors) {
      const { shape } = tensor
      const values = tensor.data
      if (product(shape) !== values.length)
        throw new ModelError(`${path}: tensor "${name}" of shape [${shape}] has ${values.length} values.`)
      const data = ENCODERS[dtype](values)
      writeAll(fd, new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
    }
    fsyncSync(fd)
  } catch (error) {
    closeSync(fd)
    rmSync(temporary, { force: true })
    throw error
  }
  closeSync(fd)
  renameSync(temporary, path)
}

function encodeHeader(
  tensors: ReadonlyMap<string, HostTensor>,
  { metadata, dtype }: { metadata: Readonly<Record<string, string>>; dtype: SafetensorsType },
): Uint8Array {
  const header: Record<string, unknown> = Object.keys(metadata).length ? { __metadata__: metadata } : {}
  let offset = 0
  for (const [name, { shape }] of tensors)
    header[name] = { dtype, shape, data_offsets: [offset, (offset += product(shape) * DTYPE_BYTES[dtype]!)] }
  const json = Buffer.from(JSON.stringify(header))
  const padded = Math.ceil(json.length / 8) * 8 // spaces, so that the data is aligned
  const out = Buffer.alloc(8 + padded, ' ')
  out.writeBigUInt64LE(BigInt(padded), 0)
  json.copy(out, 8)
  return out
}

function writeAll(fd: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.byteLength; ) done += writeSync(fd, bytes, done, Math.min(1 << 30, bytes.byteLength - done))
}

function readHeader(file: FileReader): { entries: Map<string, Entry>; metadata: Record<string, string> } {
  const lengthBytes = Buffer.alloc(8)
  file.read(lengthBytes, 0)
  const headerBytes = lengthBytes.readBigUInt64LE(0)
  if (headerBytes > MAX_HEADER_BYTES)
    throw new ModelError(`${file.path}: not a safetensors file (its first 8 bytes give a header of ${headerBytes} bytes).`)
  const dataStart = 8 + Number(headerBytes)
  const text = Buffer.alloc(Number(headerBytes))
  file.read(text, 8)
  const json = parseJson(text.toString('utf8'), file.path)
  const entries = new Map<string, Entry>()
  let end = dataStart
  for (const [name, value] of Object.entries(json)) {
    if (name === '__metadata__') continue
    const entry = checkedEntry(name, value, file.path)
    entries.set(name, { ...entry, offset: dataStart + entry.offset })
    end = Math.max(end, dataStart + entry.offset + entry.length)
  }
  file.expectSize(end)
  return { entries, metadata: (json['__metadata__'] ?? {}) as Record<string, string> }
}

function checkedEntry(name: string, value: unknown, path: string): Entry {
  const { dtype, shape, data_offsets: range } = (value ?? {}) as { dtype?: unknown; shape?: unknown; data_offsets?: unknown }
  if (typeof dtype !== 'string' || !isCounts(shape) || !isCounts(range) || range.length !== 2)
    throw new ModelError(`${path}: the header's entry of tensor "${name}" is not sound: ${JSON.stringify(value)}.`)
  const length = range[1]! - range[0]!
  const bytes = DTYPE_BYTES[dtype]
  if (length < 0 || (bytes !== undefined && length !== product(shape) * bytes))
    throw new ModelError(`${path}: tensor "${name}" (${dtype} [${shape}]) does not fit its byte range [${range}].`)
  return { dtype, shape, offset: range[0]!, length }
}

function readTensor(file: FileReader, name: string, entry: Entry): Float32Array {
  if (DTYPE_BYTES[entry.dtype] === undefined)
    throw new ModelError(
      `${file.path}: tensor "${name}" has type ${entry.dtype}. Supported: ${Object.keys(DTYPE_BYTES).join(', ')}.`,
    )
  const bytes = new Uint8Array(entry.length)
  file.read(bytes, entry.offset)
  if (entry.dtype === 'F32') return new Float32Array(bytes.buffer)
  const bits = new Uint16Array(bytes.buffer)
  return entry.dtype === 'BF16' ? bf16ToFloat32(bits) : f16ToFloat32(bits)
}

function find(entries: ReadonlyMap<string, Entry>, name: string, path: string): Entry {
  const entry = entries.get(name)
  if (!entry) throw missing(name, entries.keys(), path)
  return entry
}

function missing(name: string, known: Iterable<string>, path: string): ModelError {
  const near = nearestName(name, known)
  return new ModelError(`${path}: has no tensor "${name}".${near ? ` The nearest name is "${near}".` : ''}`)
}

function parseJson(text: string, path: string): Record<string, unknown> {
  try {
    return JSON.parse(text) as Record<string, unknown>
  } catch (cause) {
    throw new ModelError(`${path}: its header is not JSON (${(cause as Error).message}).`, { cause })
  }
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && n >= 0)
}

function product(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1)
}
