// Step records of a job as server-sent events: those after a step, then each as it comes, then `end`.

import type { GrpoJob } from './grpo-job'
import { eventStream, type SendEvent } from './sse'

/** Events `step` (data: a StepRecord, id: its step) and at last `end` (data: {status, reason}) when the job has ended. */
export function streamSteps(job: GrpoJob, after: number, signal: AbortSignal): Response {
  const failed = (error: unknown) => JSON.stringify({ error: { message: String(error) } })
  return eventStream((send, gone) => sendSteps(job, { after, send, signal: gone }), { signal, failed })
}

async function sendSteps(job: GrpoJob, options: { after: number; send: SendEvent; signal: AbortSignal }): Promise<void> {
  let { after } = options
  while (!options.signal.aborted) {
    for (const record of job.records.filter((entry) => entry.step > after)) {
      options.send(JSON.stringify(record), { event: 'step', id: String(record.step) })
      after = record.step
    }
    if (job.status !== 'running') {
      options.send(JSON.stringify({ status: job.status, reason: job.reason }), { event: 'end' })
      return
    }
    await job.changed(options.signal)
  }
}
