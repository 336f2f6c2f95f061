// What dspy and arbor-ai really send is accepted, and answered with the keys that they read.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type TestApp, testApp } from './fixture'

interface Call {
  readonly seq: number
  readonly path: string
  readonly request: Record<string, unknown> & { job_id?: string; model?: string; batch_id?: number; trainer_config?: object }
  readonly status: number
  readonly answer: Record<string, unknown>
}

const calls = readFileSync(join(__dirname, '../../test/golden/arbor/traffic.jsonl'), 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line) as Call)

/** Keys of an object and of the objects in it; a list counts by its first entry, a map of names by its first value. */
function shape(value: unknown, key = ''): unknown {
  if (Array.isArray(value)) return key === 'pending_batch_ids' ? 'ids' : value.length === 0 ? [] : [shape(value[0])]
  if (typeof value !== 'object' || value === null) return key === 'metadata' ? 'metadata' : 'value'
  if (key === 'metadata') return 'metadata'
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, shape(inner, name)]))
}

/** The recorded call with our job's id and our batch ids. */
function translated(call: Call, ids: Map<string, string>, pending: readonly number[]): Record<string, unknown> {
  let text = JSON.stringify(call.request)
  for (const [theirs, ours] of ids) text = text.replaceAll(theirs, ours)
  text = text.replaceAll('"max_seq_len":512', '"max_seq_len":2048') // a token is a byte here
  const body = JSON.parse(text) as Call['request']
  if (body.batch_id !== undefined) body.batch_id = pending[0]!
  return body
}

async function replay(app: TestApp, part: readonly Call[]): Promise<{ seq: number; theirs: unknown; ours: unknown }[]> {
  const ids = new Map<string, string>()
  let pending: readonly number[] = []
  const shapes = []
  for (const call of part) {
    const answer = await app.call(call.path, translated(call, ids, pending))
    if (call.path.endsWith('/initialize')) ids.set(String(call.answer['job_id']), String(answer['job_id']))
    if (Array.isArray(answer['pending_batch_ids'])) pending = answer['pending_batch_ids'] as number[]
    shapes.push({ seq: call.seq, theirs: shape(call.answer), ours: shape(answer) })
  }
  return shapes
}

describe('recorded traffic of dspy 3.3.1 with arbor-ai 0.2.17', () => {
  const second = calls.findIndex((call) => call.path === '/fine_tuning/grpo/initialize')
  for (const [name, part] of [
    ['under /v1', calls.slice(0, second)],
    ['at the root', calls.slice(second)],
  ] as const)
    it(`is answered in the same shapes: ${name}`, async () => {
      const app = await testApp()
      const shapes = await replay(app, part)
      expect(shapes.length).toBeGreaterThan(40)
      for (const { seq, theirs, ours } of shapes) expect({ seq, shape: ours }).toEqual({ seq, shape: theirs })
    })

  it('is trained: every group posted makes a record, tokens found by text where the client sends what it sampled', async () => {
    const app = await testApp()
    await replay(app, calls.slice(0, second))
    const [job] = app.services.jobs.serving()
    const posted = calls.slice(0, second).filter((call) => call.path.endsWith('/step'))
    expect(job!.records.map((record) => record.step)).toEqual(posted.map((_, i) => i + 1))
    // The client formats what it posts with another adapter than it sampled with, so nothing matches, and the record says so.
    expect(job!.records[0]!.notes.join(' ')).toContain('tokenized again')
  })
})
