// A fine-tuning job on an Arbor server: upload, create, listen, cancel. OpenAI's calls, which any such server has.

import { setTimeout } from 'node:timers/promises'
import { ProtocolError } from '../errors'
import type { FileObject, FineTuningEvent, FineTuningJobObject, Message } from '../protocol'
import { failure, reach, withSlash } from './arbor-job'

/** How often the server is asked for news. */
const POLL_MS = 300
const START_AGAIN = 'start it again (arbor.startServer), then compile again'

export interface FinetuneRequest {
  /** Conversations; the last message of each is what is learnt. */
  readonly trainData: readonly { readonly messages: readonly Message[] }[]
  /** The job's hyperparameters, as they are. */
  readonly trainKwargs: Readonly<Record<string, unknown>>
  readonly signal?: AbortSignal | undefined
  /** Hears the job's events in order. */
  readonly onEvent?: (event: FineTuningEvent) => void
}

/**
 * Fine-tunes `model` on the server at `baseUrl`, and answers the name under which the trained model is served.
 * @throws ProtocolError when the server refuses the data or the job fails; after an abort, the signal's reason, the job cancelled
 */
export async function finetuneOnServer(baseUrl: string, model: string, request: FinetuneRequest): Promise<string> {
  const server = new FinetuneServer(baseUrl)
  const file = await server.upload(request.trainData)
  const job = await server.create({ model, training_file: file.id, hyperparameters: request.trainKwargs })
  const ended = await server.follow(job.id, request)
  if (ended.status === 'succeeded' && ended.fine_tuned_model) return ended.fine_tuned_model
  throw new ProtocolError(`Fine-tuning job ${job.id} ended as "${ended.status}": ${ended.error?.message ?? 'no reason given'}`, {
    status: 409,
  })
}

class FinetuneServer {
  constructor(private readonly baseUrl: string) {}

  upload(rows: FinetuneRequest['trainData']): Promise<FileObject> {
    const form = new FormData()
    form.set('purpose', 'fine-tune')
    form.set('file', new File([rows.map((row) => `${JSON.stringify(row)}\n`).join('')], 'train.jsonl'))
    return this.ask('files', { method: 'POST', body: form })
  }

  create(body: { model: string; training_file: string; hyperparameters: object }): Promise<FineTuningJobObject> {
    return this.ask('fine_tuning/jobs', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
  }

  /** Waits for the end of a job and passes on what it tells. */
  async follow(id: string, { signal, onEvent }: FinetuneRequest): Promise<FineTuningJobObject> {
    let last: string | null = null
    for (;;) {
      if (signal?.aborted) return this.cancelled(id, signal)
      const job = await this.ask<FineTuningJobObject>(`fine_tuning/jobs/${id}`)
      const after: string = last === null ? '' : `?after=${last}`
      const { data }: { data: FineTuningEvent[] } = await this.ask(`fine_tuning/jobs/${id}/events${after}`)
      for (const event of data) onEvent?.(event)
      last = data.at(-1)?.id ?? last
      if (job.finished_at !== null) return job
      await setTimeout(POLL_MS, undefined, signal ? { signal } : {}).catch((error: Error) => {
        if (!signal?.aborted) throw error
      })
    }
  }

  private async cancelled(id: string, signal: AbortSignal): Promise<never> {
    await this.ask(`fine_tuning/jobs/${id}/cancel`, { method: 'POST' }).catch(() => {}) // it may have ended meanwhile
    throw signal.reason
  }

  private async ask<T>(path: string, init: RequestInit = {}): Promise<T> {
    const response = await reach(new URL(path, withSlash(this.baseUrl)), init, START_AGAIN)
    if (!response.ok) throw await failure(response, path.split('?')[0]!)
    return (await response.json()) as T
  }
}
