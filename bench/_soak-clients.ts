// The soak's clients, each a loop until the time is up: those who wait for their answer and check it, those who hang up half way,
// those who send nonsense, one who trains, one who watches, and those who open a stream and never read it.

import { connect, type Socket } from 'node:net'
import { mutated, random } from './_mutations'
import {
  type Answer,
  type Asked,
  answerOf,
  type Begun,
  type ChatBody,
  continuationOf,
  type Known,
  StreamedAnswer,
  type TextBody,
} from './_soak-questions'

export interface Run {
  readonly baseUrl: string
  readonly model: string
  readonly known: readonly Known[]
  readonly until: number // performance.now()
  readonly tally: Tally
}

/** What happened, by kind of request. */
export class Tally {
  readonly counts: Record<string, number> = {}
  readonly milliseconds: Record<string, number[]> = {}
  /** What should never have happened, the first of each kind in words. */
  readonly faults: string[] = []
  faulty = 0

  count(kind: string, started?: number): void {
    this.counts[kind] = (this.counts[kind] ?? 0) + 1
    if (started !== undefined) (this.milliseconds[kind] ??= []).push(performance.now() - started)
  }

  fault(text: string): void {
    this.faulty++
    if (this.faults.length < 20) this.faults.push(text)
  }
}

const running = ({ until }: Run) => performance.now() < until

export async function ask({ baseUrl, model }: Pick<Run, 'baseUrl' | 'model'>, asked: Asked): Promise<Answer> {
  const response = await post(`${baseUrl}chat/completions`, { model, ...asked })
  if (response.status !== 200) throw new Error(`${response.status} ${await response.text()}`)
  return answerOf((await response.json()) as ChatBody)
}

export async function goOn({ baseUrl, model }: Pick<Run, 'baseUrl' | 'model'>, begun: Begun): Promise<Answer> {
  const response = await post(`${baseUrl}completions`, { model, ...begun })
  if (response.status !== 200) throw new Error(`${response.status} ${await response.text()}`)
  return continuationOf((await response.json()) as TextBody)
}

export async function askStreamed({ baseUrl, model }: Pick<Run, 'baseUrl' | 'model'>, asked: Asked): Promise<Answer> {
  const streamed = new StreamedAnswer()
  const body = { model, ...asked, stream: true, stream_options: { include_usage: true } }
  const response = await post(`${baseUrl}chat/completions`, body)
  if (response.status !== 200) throw new Error(`${response.status} ${await response.text()}`)
  let done = false
  for await (const data of events(response)) {
    if (data === '[DONE]') done = true
    else streamed.take(data)
  }
  if (!done) throw new Error('a stream ended without [DONE]')
  return streamed.answer
}

/** Asks what is known, and holds the answer to it; every sixth time hangs up half way instead. */
export async function checkingClient(run: Run, number: number): Promise<void> {
  const draw = random(number)
  for (let turn = 0; running(run); turn++) {
    const known = run.known[Math.floor(draw() * run.known.length)]!
    const kind = (['streamed', 'streamed', 'plain', 'plain', 'text'] as const)[Math.floor(5 * draw())]!
    const started = performance.now()
    try {
      if (turn % 6 === 5) {
        await hangUp(run, known.asked, kind === 'streamed', draw)
        run.tally.count('hung up')
        continue
      }
      const told = await {
        streamed: () => askStreamed(run, known.asked),
        plain: () => ask(run, known.asked),
        text: () => goOn(run, known.begun),
      }[kind]()
      const answer = kind === 'text' ? known.continued : known.answer
      run.tally.count(kind, started)
      if (JSON.stringify(told) !== JSON.stringify(answer))
        run.tally.fault(`${kind}: expected ${JSON.stringify(answer)}, got ${JSON.stringify(told)}`)
    } catch (error) {
      run.tally.fault(`${kind}: ${(error as Error).message}`)
    }
  }
}

/** Goes away after some of the stream, or in the middle of waiting. */
async function hangUp({ baseUrl, model }: Run, asked: Asked, streamed: boolean, draw: () => number): Promise<void> {
  const away = new AbortController()
  const body = { model, ...asked, max_tokens: 200, stream: streamed }
  try {
    const timer = setTimeout(() => away.abort(), streamed ? 5000 : 200 * draw())
    const response = await post(`${baseUrl}chat/completions`, body, away.signal)
    let left = 1 + Math.floor(6 * draw())
    if (streamed) for await (const _ of events(response)) if (--left === 0) break
    away.abort()
    clearTimeout(timer)
  } catch (error) {
    if (!away.signal.aborted) throw error
  }
}

/** Bodies that are nearly right: anything but an answer below 500 in JSON is a fault. */
export async function nonsenseClient(run: Run, number: number): Promise<void> {
  const draw = random(number)
  const bodies: readonly (readonly [string, object])[] = [
    ['chat/completions', { model: run.model, ...run.known[0]!.asked, max_tokens: 1 }],
    ['fine_tuning/grpo/initialize', { model: 'another model', trainer_config: { num_generations: 4, beta: 0 } }],
    [
      'fine_tuning/grpo/step',
      { job_id: 'grpo:none', model: 'none', batch_id: 0, batch: [{ messages: [], completion: {}, reward: 0 }] },
    ],
    ['fine_tuning/jobs', { model: run.model, training_file: 'file-none', hyperparameters: { n_epochs: 1 } }],
  ]
  while (running(run)) {
    const [path, body] = bodies[Math.floor(draw() * bodies.length)]!
    try {
      const response = await post(run.baseUrl + path, mutated(body, draw))
      const text = await response.text()
      run.tally.count('nonsense')
      if (response.status >= 500) run.tally.fault(`nonsense at ${path}: ${response.status} ${text.slice(0, 200)}`)
      if (!/event-stream/.test(response.headers.get('content-type') ?? '')) JSON.parse(text)
    } catch (error) {
      run.tally.fault(`nonsense at ${path}: ${(error as Error).message}`)
    }
    await pause(50)
  }
}

/** A GRPO job beside it all: rollouts, an update, again. */
export async function trainingClient(run: Run): Promise<void> {
  const lora_config = { r: 8, lora_alpha: 16, target_modules: 'all-linear', lora_dropout: 0 }
  const trainer_config = { num_generations: 4, groups_per_step: 1, beta: 0, learning_rate: 1e-4, max_steps: 1000, lora_config }
  const initialized = await post(`${run.baseUrl}fine_tuning/grpo/initialize`, { model: run.model, trainer_config })
  let status = (await initialized.json()) as { job_id: string; pending_batch_ids: number[] }
  const { job_id } = status
  for (let step = 0; running(run); step++) {
    try {
      const { messages } = run.known[step % run.known.length]!.asked
      const sampled = await post(`${run.baseUrl}chat/completions`, { model: job_id, messages, n: 4, seed: step, max_tokens: 48 })
      const { id, choices } = (await sampled.json()) as ChatBody
      const batch = choices.map(({ index, message }) => ({
        messages,
        completion: { role: 'assistant', content: message.content },
        reward: message.content.length % 3,
        completion_id: `${id}#${index}`,
      }))
      const posted = await post(`${run.baseUrl}fine_tuning/grpo/step`, {
        job_id,
        model: job_id,
        batch_id: status.pending_batch_ids[0],
        batch: [batch],
      })
      if (posted.status !== 200) throw new Error(`${posted.status} ${await posted.text()}`)
      status = (await posted.json()) as typeof status
      run.tally.count('training step')
    } catch (error) {
      run.tally.fault(`training: ${(error as Error).message}`)
      await pause(500)
    }
    await pause(1000)
  }
  await post(`${run.baseUrl}fine_tuning/grpo/cancel`, { job_id })
}

/** A page that somebody looks at. */
export async function watchingClient(run: Run): Promise<void> {
  while (running(run)) {
    for (const path of ['health', 'jobs', 'models']) {
      try {
        const response = await fetch(run.baseUrl + path)
        await response.arrayBuffer()
        run.tally.count(path)
        if (response.status !== 200) run.tally.fault(`${path}: ${response.status}`)
      } catch (error) {
        run.tally.fault(`${path}: ${(error as Error).message}`)
      }
    }
    await pause(1000)
  }
}

/** Asks for streams and reads nothing of them, as a client that hangs. The sockets are closed by whoever gets them. */
export function stuckClients({ baseUrl, model, known }: Run, count: number): Socket[] {
  const { hostname, port } = new URL(baseUrl)
  return Array.from({ length: count }, (_, i) => {
    const socket = connect(Number(port), hostname)
    socket.on('error', () => {})
    socket.pause()
    const body = JSON.stringify({ model, ...known[i % known.length]!.asked, max_tokens: 500, stream: true })
    socket.write(
      `POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    )
    return socket
  })
}

function post(url: string, body: unknown, signal?: AbortSignal): Promise<Response> {
  return fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    ...(signal && { signal }),
  })
}

/** The data of each event. */
async function* events(response: Response): AsyncGenerator<string> {
  let rest = ''
  const decoder = new TextDecoder()
  for await (const bytes of response.body as unknown as AsyncIterable<Uint8Array>) {
    const parts = (rest + decoder.decode(bytes, { stream: true })).split('\n\n')
    rest = parts.pop()!
    for (const part of parts) if (part.startsWith('data: ')) yield part.slice('data: '.length)
  }
}

export function pause(milliseconds: number): Promise<void> {
  return new Promise((wake) => setTimeout(wake, milliseconds))
}
