// How soon the server answers others while it works: a thread of its own asks for health and for the jobs' status all the time.

import { Agent, request } from 'node:http'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'

/** Milliseconds from a question to its whole answer. */
export interface Latency {
  readonly asked: number
  readonly p50: number
  readonly p99: number
  readonly max: number
}

const EVERY_MS = 100 // seldom enough to cost the step nothing

/** Begins to ask the server at `baseUrl`; `end` answers what was measured, by route. */
export function watchLatency(baseUrl: string): { end(): Promise<Record<string, Latency>> } {
  const thread = new Worker(__filename, { workerData: baseUrl })
  const result = new Promise<Record<string, Latency>>((resolve, reject) => thread.once('message', resolve).once('error', reject))
  return {
    end: () => {
      thread.postMessage('end')
      return result
    },
  }
}

async function askAllTheTime(baseUrl: string): Promise<void> {
  const agent = new Agent({ keepAlive: true })
  let running = true
  parentPort!.once('message', () => (running = false))
  const times: Record<string, number[]> = { health: [], 'grpo status': [] }
  let job: string | undefined
  while (running) {
    job ??= (await ask<{ data: { id: string }[] }>(agent, `${baseUrl}models`)).data.at(1)?.id // the first is the model itself
    times['health']!.push(await timed(() => ask(agent, `${baseUrl}health`)))
    if (job !== undefined)
      times['grpo status']!.push(await timed(() => ask(agent, `${baseUrl}fine_tuning/grpo/status`, { job_id: job })))
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS))
  }
  agent.destroy()
  parentPort!.postMessage(Object.fromEntries(Object.entries(times).map(([route, ms]) => [route, summary(ms)])))
}

function summary(times: readonly number[]): Latency {
  const sorted = [...times].sort((a, b) => a - b)
  const at = (share: number) => Number((sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0).toFixed(1))
  return { asked: sorted.length, p50: at(0.5), p99: at(0.99), max: at(1) }
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now()
  await work()
  return performance.now() - started
}

/** A GET, or a POST of `body`, over a connection that stays open. */
function ask<T>(agent: Agent, url: string, body?: object): Promise<T> {
  return new Promise((resolve, reject) => {
    const headers = body ? { 'content-type': 'application/json' } : {}
    const sent = request(url, { agent, method: body ? 'POST' : 'GET', headers }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
      response.on('end', () => resolve(JSON.parse(text) as T)).on('error', reject)
    })
    sent.on('error', reject)
    sent.end(body && JSON.stringify(body))
  })
}

if (!isMainThread) void askAllTheTime(workerData as string)
