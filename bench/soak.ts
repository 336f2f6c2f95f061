// 64 clients at once for minutes: is an answer lost, mixed up with another's, or held up; does memory stay flat; are the places of those who
// hang up free again? On this machine alone, bounded in time and number. npm run soak [-- --seconds 300 --clients 64 --model arbor-tiny]

import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { arbor, dspy } from '../src'
import type { Health } from '../src/protocol'
import { watchLatency } from './_latency'
import { machine } from './_report'
import {
  ask,
  checkingClient,
  goOn,
  nonsenseClient,
  pause,
  type Run,
  stuckClients,
  Tally,
  trainingClient,
  watchingClient,
} from './_soak-clients'
import { askedOf, begunOf, type Known } from './_soak-questions'

const MAX_SECONDS = 1800
const MAX_CLIENTS = 256
const QUESTIONS = 96
const STUCK = 4
const REPORT_MS = 30_000

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string', default: '300' },
      clients: { type: 'string', default: '64' },
      model: { type: 'string', default: 'arbor-tiny' },
      device: { type: 'string', default: 'auto' },
      'no-training': { type: 'boolean', default: false },
      'no-faults': { type: 'boolean', default: false },
    },
  })
  const seconds = Math.min(MAX_SECONDS, Number(values.seconds))
  const clients = Math.min(MAX_CLIENTS, Number(values.clients))
  const model = values.model!
  const server = await arbor.startServer(model, { device: values.device as 'auto', port: 0, onLog: say })
  const known = await tellAlone(server.baseUrl, model)
  say(`${known.length} questions answered alone; now ${clients} clients for ${seconds} s`)
  const tally = new Tally()
  const run: Run = { baseUrl: server.baseUrl, model, known, until: performance.now() + 1000 * seconds, tally }
  const stuck = stuckClients(run, STUCK)
  const memory = watchMemory(server.pid, tally)
  const watch = watchLatency(server.baseUrl) // from a thread of its own: 64 clients keep this one busy
  const others = [watchingClient(run), nonsenseClient(run, 0), ...(values['no-training'] ? [] : [trainingClient(run)])]
  const checking = Array.from({ length: clients - others.length }, (_, i) => checkingClient(run, i + 1))
  await Promise.all([...others, ...checking])
  const samples = memory.end()
  const answers = await watch.end()
  for (const socket of stuck) socket.destroy()
  const queue = await emptyQueue(server.baseUrl)
  const again = await recheck(run)
  report({ seconds, clients, model, tally, samples, queue, again, answers })
  await server.close()
  // The long form of the faults, too: a server that is killed again and again.
  if (!values['no-faults'] && spawnSync(process.execPath, [join(__dirname, 'faults.js')], { stdio: 'inherit' }).status !== 0)
    process.exitCode = 1
  if (tally.faulty > 0 || again > 0 || queue.running + queue.waiting > 0) process.exitCode = 1
}

/** The truth: each question asked while nothing else runs. */
async function tellAlone(baseUrl: string, model: string): Promise<Known[]> {
  const { trainset } = await dspy.loadExamples('data/simple-qa', { inputs: ['question'] })
  const known: Known[] = []
  for (const [i, example] of trainset.slice(0, QUESTIONS).entries()) {
    const asked = askedOf(String((example as unknown as { question: string }).question), i)
    const begun = begunOf(asked)
    known.push({ asked, answer: await ask({ baseUrl, model }, asked), begun, continued: await goOn({ baseUrl, model }, begun) })
  }
  return known
}

/** After the storm, alone again: how many of the answers are others than before it. */
async function recheck(run: Run): Promise<number> {
  let wrong = 0
  for (const { asked, answer, begun, continued } of run.known) {
    if (JSON.stringify(await ask(run, asked)) !== JSON.stringify(answer)) wrong++
    if (JSON.stringify(await goOn(run, begun)) !== JSON.stringify(continued)) wrong++
  }
  return wrong
}

/** The queue once it is empty, or what is left of it after ten seconds. */
async function emptyQueue(baseUrl: string): Promise<Health['queue']> {
  for (let i = 0; ; i++) {
    const { queue } = (await (await fetch(`${baseUrl}health`)).json()) as Health
    if (i >= 100 || queue.running + queue.waiting === 0) return queue
    await pause(100)
  }
}

interface Sample {
  readonly seconds: number
  readonly mib: number
}

/** The server's resident memory every second. */
function watchMemory(pid: number, tally: Tally): { end(): Sample[] } {
  const started = performance.now()
  const samples: Sample[] = []
  const timer = setInterval(() => {
    const kib = Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? Number.NaN)
    samples.push({ seconds: (performance.now() - started) / 1000, mib: kib / 1024 })
  }, 1000)
  const told = setInterval(
    () =>
      say(
        `${Math.round((performance.now() - started) / 1000)} s  ${Math.round(samples.at(-1)?.mib ?? 0)} MiB  ${JSON.stringify(tally.counts)}  faults ${tally.faulty}`,
      ),
    REPORT_MS,
  )
  return {
    end: () => {
      clearInterval(timer)
      clearInterval(told)
      return samples
    },
  }
}

interface Outcome {
  readonly seconds: number
  readonly clients: number
  readonly model: string
  readonly tally: Tally
  readonly samples: readonly Sample[]
  readonly queue: Health['queue']
  readonly again: number
  readonly answers: Awaited<ReturnType<ReturnType<typeof watchLatency>['end']>>
}

function report({ seconds, clients, model, tally, samples, queue, again, answers }: Outcome): void {
  const about = machine()
  const asked = Object.entries(tally.milliseconds).map(([kind, times]) => [kind, percentiles(times)] as const)
  const latencies = { ...Object.fromEntries(asked), ...answers }
  const parts = memoryParts(samples)
  const lines = [
    `${clients} clients for ${seconds} s on ${model}`,
    JSON.stringify(about),
    `requests: ${Object.entries(tally.counts)
      .map(([kind, count]) => `${kind} ${count}`)
      .join(', ')}`,
    `lost, wrong or refused: ${tally.faulty}; wrong when asked alone afterwards: ${again}; left in the queue: ${queue.running} + ${queue.waiting}`,
    ...tally.faults.map((fault) => `  ${fault}`),
    ...Object.entries(latencies).map(
      ([kind, { p50, p99, max }]) => `${kind.padEnd(12)} ${p50} ms, p99 ${p99} ms, longest ${max} ms`,
    ),
    `memory, MiB, by fifths of the time (median): ${parts.join(', ')}`,
  ]
  process.stdout.write(`${lines.join('\n')}\n`)
  const result = {
    title: 'soak',
    ...about,
    seconds,
    clients,
    model,
    counts: tally.counts,
    faults: tally.faulty,
    again,
    queue,
    latencies,
    memory_mib: parts,
  }
  process.stdout.write(`${JSON.stringify(result)}\n`)
}

function percentiles(times: readonly number[]): { p50: number; p99: number; max: number } {
  const sorted = [...times].sort((a, b) => a - b)
  const at = (share: number) =>
    Math.round(10 * (sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0)) / 10
  return { p50: at(0.5), p99: at(0.99), max: at(1) }
}

function memoryParts(samples: readonly Sample[]): number[] {
  const size = Math.max(1, Math.ceil(samples.length / 5))
  return [0, 1, 2, 3, 4].map((i) => {
    const part = samples
      .slice(i * size, (i + 1) * size)
      .map(({ mib }) => mib)
      .sort((a, b) => a - b)
    return Math.round(part[Math.floor(part.length / 2)] ?? Number.NaN)
  })
}

function say(line: string): void {
  process.stderr.write(`${line}\n`)
}

void main()
