// The records of a W&B log, by the field numbers of wandb's protobuf schema (0.31). Each answers one field of `Record`.

import { bytes, message, texts, varint } from './protobuf'

/** A value at a path of keys: ["train/loss"], ["completions", "_type"]. */
export type Entry = readonly [path: readonly string[], value: unknown]

export interface WandbRun {
  readonly id: string
  readonly project: string
  readonly entity: string | null
  readonly name: string
  readonly group: string | null
  readonly jobType: string | null
  readonly notes: string | null
  readonly tags: readonly string[]
  readonly host: string
  readonly started: number // unix seconds
  /** Rows that another log of the run has already. */
  readonly startingStep: number
  readonly config: Readonly<Record<string, unknown>>
}

/** The version of the schema; readers older than the second refuse the log. */
export function header(): Buffer {
  return message(21, message(1, bytes(1, '0.31.0'), bytes(2, '0.70.0')))
}

export function run(of: WandbRun): Buffer {
  const text = (field: number, value: string | null) => (value === null ? Buffer.alloc(0) : bytes(field, value))
  const config = Object.entries(of.config).map(([key, value]) => message(1, bytes(1, key), bytes(16, valueJson(value))))
  return message(
    17,
    bytes(1, of.id),
    text(2, of.entity),
    bytes(3, of.project),
    message(4, ...config),
    text(6, of.group),
    text(7, of.jobType),
    bytes(8, of.name),
    text(9, of.notes),
    texts(10, of.tags),
    bytes(13, of.host),
    varint(14, of.startingStep),
    message(17, timestamp(of.started)),
  )
}

export function environment(of: { readonly os: string; readonly host: string; readonly cpus: number; started: number }): Buffer {
  return message(
    26,
    bytes(1, of.os),
    message(3, timestamp(of.started)),
    bytes(6, 'arbor-nb'),
    bytes(12, of.host),
    varint(17, of.cpus),
  )
}

/** Charts take `name` as their x axis; the second record's pattern covers all metrics. The order matters. */
export function stepMetric(name: string): Buffer[] {
  const [stepSync, defined] = [varint(1, true), varint(3, true)]
  return [
    message(12, bytes(1, name), message(6, defined)),
    message(12, bytes(2, '*'), bytes(4, name), message(6, stepSync, defined)),
  ]
}

export function history(step: number, entries: readonly Entry[]): Buffer {
  return message(2, ...entries.map((entry) => message(1, nested(entry))), message(2, varint(1, step)))
}

/** What the run's page shows: sync builds it from these records alone. */
export function summary(entries: readonly Entry[]): Buffer {
  return message(3, ...entries.map((entry) => message(1, nested(entry))))
}

/** A file below files/, uploaded as media. */
export function mediaFile(path: string): Buffer {
  return message(6, message(1, bytes(1, path), varint(3, 2)))
}

/** Always the last one: sync reads no further. */
export function exit(code: number, seconds: number): Buffer {
  return message(18, varint(1, code), varint(2, Math.round(seconds)))
}

/** JSON as wandb reads it: what isn't a finite number stands as Python writes it, not as null. */
export function valueJson(value: unknown): string {
  return typeof value === 'number' && !Number.isFinite(value) ? String(value) : JSON.stringify(value)
}

function nested([path, value]: Entry): Buffer {
  return Buffer.concat([texts(2, path), bytes(16, valueJson(value))])
}

function timestamp(seconds: number): Buffer {
  return Buffer.concat([varint(1, Math.floor(seconds)), varint(2, Math.floor((seconds % 1) * 1e9))])
}
