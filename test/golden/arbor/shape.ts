// The recorded traffic of Arbor's clients (traffic.jsonl), and how a call is compared with it: by its keys, never by its values.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'

/** One call of a client and what it was answered. */
export interface Call {
  readonly method: string
  readonly path: string
  readonly request: Record<string, unknown>
  readonly status: number
  readonly answer: Record<string, unknown>
}

export interface RecordedCall extends Call {
  readonly seq: number
}

/** Two compiles of dspy 3.3.1 with arbor-ai 0.2.17: the first with an api_base that ends in /v1/, the second in /v1. */
export function recordedCalls(): RecordedCall[] {
  const text = readFileSync(join(__dirname, 'traffic.jsonl'), 'utf8')
  return text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as RecordedCall)
}

/** Keys of an object and of the objects in it; a list counts by its first entry, metadata and ids by their names. */
export function shape(value: unknown, key = ''): unknown {
  if (Array.isArray(value)) return key === 'pending_batch_ids' ? 'ids' : value.length === 0 ? [] : [shape(value[0])]
  if (typeof value !== 'object' || value === null) return key === 'metadata' ? 'metadata' : 'value'
  if (key === 'metadata') return 'metadata'
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, shape(inner, name)]))
}
