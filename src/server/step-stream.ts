// Step records of a job as server-sent events: those after a step, then each as it comes, then `end`.

import type { JobSummary, StepRecord } from '../protocol'
import { eventStream, type Reader, type SendEvent } from './sse'

/** What has steps: a job, or the run of an earlier server. */
export interface Stepping {
  readonly records: readonly StepRecord[]
  readonly status: JobSummary['status']
  readonly reason: string | null
  /** Resolves at the next change. */
  changed(signal: AbortSignal): Promise<void>
}

export interface StepStreamOptions {
  /** The last step that the reader has. */
  readonly after: number
  /** False: the completions' texts are left out, as charts need none. */
  readonly texts: boolean
  readonly signal: AbortSignal
}

/** Events `step` (data: a StepRecord, id: its step) and at last `end` (data: {status, reason}) when the job has ended. */
export function streamSteps(job: Stepping, options: StepStreamOptions): Response {
  const failed = (error: unknown) => JSON.stringify({ error: { message: String(error) } })
  return eventStream((send, signal, reader) => sendSteps(job, { ...options, signal, send, reader }), {
    signal: options.signal,
    failed,
  })
}

interface Sending extends StepStreamOptions {
  readonly send: SendEvent
  readonly reader: Reader
}

/** A slow reader holds nothing up and nothing in memory: its next record is written when it has read the one before. */
async function sendSteps(job: Stepping, { after, texts, signal, send, reader }: Sending): Promise<void> {
  let next = job.records.filter(({ step }) => step <= after).length
  while (!signal.aborted) {
    const record = job.records[next]
    if (record) {
      send(JSON.stringify(texts ? record : withoutTexts(record)), { event: 'step', id: String(record.step) })
      next++
      await reader.caughtUp()
    } else if (job.status === 'running') await job.changed(signal)
    else return send(JSON.stringify({ status: job.status, reason: job.reason }), { event: 'end' })
  }
}

function withoutTexts(record: StepRecord): StepRecord {
  return { ...record, groups: record.groups.map((group) => ({ ...group, completions: [] })) }
}
