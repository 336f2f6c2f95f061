// One training job on an Arbor server: the wire calls, and the stream of step records (ours).

import { ProtocolError } from '../errors'
import { patientFetch } from '../program'
import {
  type GRPOStatus,
  type GroupInfo,
  type InitializeRequest,
  type StepRecord,
  type StepRequest,
  type StepSample,
  sameMessages,
} from '../protocol'

/** A GRPO job as ArborGRPO's loop sees it: on our server (ArborJob) or on a real Arbor (ArborClusterJob). */
export interface GrpoJob {
  readonly id: string
  /** The model name that answers with this job's current weights. */
  readonly model: string
  /** The answer to initialize; a resumed job tells its checkpoints here. */
  readonly first: GRPOStatus
  /** Posts the groups of one step. */
  step(request: { batch: StepSample[][]; groups: GroupInfo[]; metrics: Record<string, number> }): Promise<GRPOStatus>
  /** Returns when the weights are on disk. */
  checkpoint(name: string, metadata: Record<string, unknown>): Promise<GRPOStatus>
  /** The job's policy becomes that of a checkpoint, `best` or `last`. Only our server can. */
  restore?(name: string): Promise<GRPOStatus>
  terminate(): Promise<GRPOStatus>
  /** Step records from `after` + 1 on, as they come. */
  records(after: number, signal?: AbortSignal): AsyncGenerator<StepRecord>
}

export class ArborJob implements GrpoJob {
  private constructor(
    private readonly baseUrl: string,
    readonly id: string,
    /** The model name that answers with this job's current weights. */
    readonly model: string,
    /** The answer to initialize; a resumed job tells its checkpoints here. */
    readonly first: GRPOStatus,
  ) {
    this.latest = first
  }

  /** The newest answer. Every answer tells which batch the server waits for, so a step needs no question before it. */
  latest: GRPOStatus

  /** Opens (or, with `resume_from`, continues) a job. Blocks until the model is loaded; no timeout. */
  static async initialize(baseUrl: string, request: InitializeRequest): Promise<ArborJob> {
    const status = await post(baseUrl, 'fine_tuning/grpo/initialize', request)
    return new ArborJob(baseUrl, status.job_id, status.current_model, status)
  }

  status(): Promise<GRPOStatus> {
    return this.call('status', {})
  }

  /** Posts one update's groups. The server answers at once and trains behind; `records` tells when it is done. */
  step(request: Omit<StepRequest, 'job_id' | 'model' | 'batch_id'> & { batch_id?: number }): Promise<GRPOStatus> {
    const [batch_id = -1] = this.latest.pending_batch_ids // none is offered by a job that has ended: its answer says so
    const groups = request.batch as readonly (StepSample | readonly StepSample[])[]
    const batch = groups.map((group) => (Array.isArray(group) ? withoutRepeats(group) : group))
    return this.call('step', { model: this.model, batch_id, ...request, batch })
  }

  /** Returns when the weights are on disk. */
  checkpoint(name: string, metadata: Record<string, unknown>): Promise<GRPOStatus> {
    return this.call('checkpoint', { checkpoint_name: name, metadata })
  }

  /** The job's policy becomes that of a checkpoint: one of its own names, `best` (by validation score) or `last`. */
  restore(name: string): Promise<GRPOStatus> {
    return this.call('restore', { checkpoint_name: name })
  }

  terminate(): Promise<GRPOStatus> {
    return this.call('terminate', {})
  }

  cancel(): Promise<GRPOStatus> {
    return this.call('cancel', {})
  }

  /** Step records from `after` + 1 on, as they come; ends with the job. Throws ProtocolError when the job failed or the server went away. */
  async *records(after: number, signal?: AbortSignal): AsyncGenerator<StepRecord> {
    const url = new URL('fine_tuning/grpo/steps', withSlash(this.baseUrl))
    url.searchParams.set('job_id', this.id)
    url.searchParams.set('after', String(after))
    const response = await reach(url, { signal })
    if (!response.ok || !response.body) throw await failure(response, 'read the step records of ' + this.id)
    for await (const { event, data } of serverSentEvents(response.body, this.id, signal)) {
      if (event === 'end') {
        const end = JSON.parse(data) as { status: string; reason: string | null }
        if (end.status !== 'succeeded')
          throw new ProtocolError(`Job ${this.id} ended as "${end.status}": ${end.reason ?? 'no reason given'}`, { status: 409 })
        return
      }
      yield JSON.parse(data) as StepRecord
    }
    throw new ProtocolError(
      `The server closed the record stream of ${this.id} before the job ended. Its run folder is on disk; start the server again and compile with { resume: '${this.id}' }.`,
      { status: 0 },
    )
  }

  private async call(path: string, body: Record<string, unknown>): Promise<GRPOStatus> {
    this.latest = await post(this.baseUrl, `fine_tuning/grpo/${path}`, { job_id: this.id, ...body })
    return this.latest
  }
}

/** The messages of a group's samples are mostly the same: sent once, they are nine tenths of the step less to write and to read. */
function withoutRepeats(group: readonly StepSample[]): Partial<StepSample>[] {
  return group.map(({ messages, ...rest }, i) =>
    sameMessages(messages, group[i - 1]?.messages ?? []) ? rest : { messages, ...rest },
  )
}

async function post(baseUrl: string, path: string, body: unknown): Promise<GRPOStatus> {
  const response = await reach(new URL(path, withSlash(baseUrl)), {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
  if (!response.ok) throw await failure(response, path)
  return (await response.json()) as GRPOStatus
}

const RESUME = 'start it again (arbor.startServer), then continue the run with compile(…, { resume: true })'

/** A request that is answered, whatever the status. @throws ProtocolError when nobody answers; `then` says what to do about it */
export async function reach(url: URL, init: RequestInit, then: string = RESUME): Promise<Response> {
  try {
    return await patientFetch(url, init)
  } catch (cause) {
    if (init.signal?.aborted) throw cause
    throw new ProtocolError(`No answer from the server at ${url.origin} (${url.pathname}). It may have stopped: ${then}.`, {
      status: 0,
      cause,
    })
  }
}

/** An answer that is no success, in the server's words. */
export async function failure(response: Response, what: string): Promise<ProtocolError> {
  const text = await response.text().catch(() => '')
  let message = text
  try {
    const body = JSON.parse(text) as { error?: { message?: string }; message?: string; detail?: unknown }
    message = body.error?.message ?? body.message ?? (body.detail === undefined ? text : JSON.stringify(body.detail))
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause // a body that is no JSON is shown as it is
  }
  return new ProtocolError(`${what}: the server answered ${response.status}: ${message}`, { status: response.status })
}

async function* serverSentEvents(
  body: ReadableStream<Uint8Array>,
  job: string,
  signal?: AbortSignal,
): AsyncGenerator<{ event: string; data: string }> {
  const decoder = new TextDecoder()
  let buffer = ''
  try {
    for await (const chunk of body as unknown as AsyncIterable<Uint8Array>) {
      buffer += decoder.decode(chunk, { stream: true })
      for (let end = buffer.indexOf('\n\n'); end >= 0; end = buffer.indexOf('\n\n')) {
        const lines = buffer.slice(0, end).split('\n')
        buffer = buffer.slice(end + 2)
        const field = (name: string) =>
          lines.filter((line) => line.startsWith(`${name}:`)).map((line) => line.slice(name.length + 1).trim())
        const data = field('data').join('\n')
        if (data) yield { event: field('event')[0] ?? 'message', data }
      }
    }
  } catch (cause) {
    signal?.throwIfAborted()
    throw new ProtocolError(
      `The server went away while ${job} was running. Its run folder is on disk; start the server again and compile with { resume: '${job}' }.`,
      { status: 0, cause },
    )
  }
}

export function withSlash(url: string): string {
  return url.endsWith('/') ? url : `${url}/`
}
