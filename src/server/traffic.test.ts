// What dspy and arbor-ai really send is accepted, and answered with the keys that they read.

import { describe, expect, it } from 'vitest'
import { type RecordedCall, recordedCalls, shape } from '../../test/golden/arbor/shape'
import { type TestApp, testApp } from './fixture'

const calls = recordedCalls()

/** The recorded call with our job's id and our batch ids. */
function translated(call: RecordedCall, ids: Map<string, string>, pending: readonly number[]): Record<string, unknown> {
  let text = JSON.stringify(call.request)
  for (const [theirs, ours] of ids) text = text.replaceAll(theirs, ours)
  text = text.replaceAll('"max_seq_len":512', '"max_seq_len":2048') // a token is a byte here
  const body = JSON.parse(text) as RecordedCall['request']
  if (body['batch_id'] !== undefined) body['batch_id'] = pending[0]!
  return body
}

async function replay(app: TestApp, part: readonly RecordedCall[]): Promise<{ seq: number; theirs: unknown; ours: unknown }[]> {
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
