// Where the time of a pass goes on a device: every kind of op of a prefill, a decode step in the middle of its rollouts and a training step, its calls
// repeated by themselves on the same memory (so a layer's weights are as cold as in the pass), against the whole pass repeated as one capture.
// npm run bench -- gpu-profile [--model 1.5b] [--device cuda] [--repeat 20] [--only decode,train] [--json FILE]; --shape and the step's sizes as in bench/gpu.
// --pairs times each op together with the one behind it, which may do a part of its work; --layers N --vocab N make a shape small enough to try things
// out on (a layer costs what it costs in the whole); --jobs N decodes under as many adapters.

import { writeFileSync } from 'node:fs'
import type { Backend, Tensor } from '../src/engine/ops/ops'
import { openGpuEngine } from './_gpu-engine'
import { profileOptions } from './_gpu-options'
import { stepText, type Workload } from './_gpu-work'
import { type LoggedPass, logOps, type OpCall, type OpLog } from './_op-log'
import { machine } from './_report'

interface Line {
  readonly kind: string
  readonly count: number
  /** Microseconds of all calls together. */
  readonly sum: number
  readonly flops: number
  /** What products read of weights. */
  readonly weightBytes: number
}

interface Section {
  readonly name: string
  readonly lines: readonly Line[]
  /** Microseconds of the pass as one capture, and as the engine took for it just now. */
  readonly whole: number
  readonly measured: number
}

type Options = ReturnType<typeof profileOptions>

async function main(): Promise<void> {
  const options = profileOptions()
  const sections: Record<string, Section[]> = {}
  for (const workload of options.workloads) {
    sections[workload.name] = await profile(workload, options)
    process.stdout.write(`\n${workload.model}, ${stepText(workload.step)}\n`)
    for (const section of sections[workload.name]!) print(section)
  }
  const text = JSON.stringify({ title: 'gpu-profile', ...machine(), sections })
  if (options.json === undefined) process.stdout.write(`\n${text}\n`)
  else writeFileSync(options.json, `${text}\n`)
}

async function profile(workload: Workload, options: Options): Promise<Section[]> {
  const { device, precision, parts, jobs } = options
  let log: OpLog | null = null
  let plain: Backend | null = null
  const watch = (backend: Backend) => {
    plain = backend
    log = logOps(backend)
    return log.backend
  }
  const engine = await openGpuEngine(workload, { device, precision, watch })
  await engine.openJobs(jobs)
  for (let i = 0; i < 2; i++) await engine.rollouts(jobs).then(() => engine.train()) // memory has grown, plans are chosen
  log!.take()
  const rollouts = await engine.rollouts(jobs)
  const passes = log!.take()
  const train = await engine.train()
  const training = log!.take()
  const decodes = passes.filter(isDecode)
  const middle = decodes.length >> 1
  const found = [
    { name: 'prefill', passes: passes.filter((pass) => !isDecode(pass)), measured: 0 },
    {
      name: `decode, step ${middle} of ${decodes.length}`,
      passes: decodes.slice(middle, middle + 1),
      measured: rollouts / Math.max(1, decodes.length),
    },
    { name: 'train', passes: training, measured: train },
  ]
  const sections: Section[] = []
  for (const one of found)
    if (one.passes.length > 0 && parts.some((part) => one.name.startsWith(part)))
      sections.push(await section(plain!, one, options))
  await engine.close()
  return sections
}

function isDecode({ calls }: LoggedPass): boolean {
  return calls.some(({ op, kind }) => op === 'linear' && kind.includes('LoRA') && kind.includes('decode'))
}

async function section(
  backend: Backend,
  { name, passes, measured }: { name: string; passes: readonly LoggedPass[]; measured: number },
  { repeat, pairs }: Options,
): Promise<Section> {
  const sums = new Map<string, Line>()
  let whole = 0
  for (const { calls, uploads } of passes) {
    for (const upload of uploads) upload()
    for (const line of await lines(backend, pairs ? pairsOf(calls) : calls.map((call) => [call]), repeat))
      sums.set(line.kind, added(sums.get(line.kind), line))
    whole += await timed(backend, calls, repeat)
  }
  return { name, lines: [...sums.values()].sort((a, b) => b.sum - a.sum), whole, measured: 1e6 * measured }
}

function added(known: Line | undefined, { kind, ...line }: Line): Line {
  if (!known) return { kind, ...line }
  const { count, sum, flops, weightBytes } = known
  return {
    kind,
    count: count + line.count,
    sum: sum + line.sum,
    flops: flops + line.flops,
    weightBytes: weightBytes + line.weightBytes,
  }
}

/** Each call and the one behind it. */
function pairsOf(calls: readonly OpCall[]): OpCall[][] {
  return calls.slice(1).map((call, i) => [calls[i]!, call])
}

/** A line for each kind of what is timed together. */
async function lines(backend: Backend, timedTogether: readonly (readonly OpCall[])[], repeat: number): Promise<Line[]> {
  const kinds = new Map<string, (readonly OpCall[])[]>()
  for (const calls of timedTogether) {
    const kind = calls.map((call) => call.kind).join(' | ')
    kinds.set(kind, [...(kinds.get(kind) ?? []), calls])
  }
  const found: Line[] = []
  for (const [kind, same] of kinds) {
    const sum = await timed(backend, same.flat(), repeat)
    const total = (of: 'flops' | 'weightBytes') => same.flat().reduce((all, call) => all + call[of], 0)
    found.push({ kind, count: same.length, sum, flops: total('flops'), weightBytes: total('weightBytes') })
  }
  return found
}

/** Microseconds of the calls, one after the other as one capture; best of three, each `repeat` replays. */
async function timed(backend: Backend, calls: readonly OpCall[], repeat: number): Promise<number> {
  const arena = backend.arena(64)
  const token = arena.tensor([1])
  const { replay, free } = captured(backend, calls)
  let [best, idle] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY]
  for (let i = 0; i < 3; i++) {
    replay()
    await wait(backend, token)
    idle = Math.min(idle, await wait(backend, token))
    const started = performance.now()
    for (let n = 0; n < repeat; n++) replay()
    await backend.download(token)
    best = Math.min(best, 1000 * (performance.now() - started))
  }
  free()
  arena.close()
  return Math.max(0, best - idle) / repeat
}

/** Microseconds of a wait for nothing. */
async function wait(backend: Backend, token: Tensor): Promise<number> {
  const started = performance.now()
  await backend.download(token)
  return 1000 * (performance.now() - started)
}

/** One capture, or where an op does not let itself be captured the calls themselves. */
function captured(backend: Backend, calls: readonly OpCall[]): { replay: () => void; free: () => void } {
  const enqueue = () => {
    for (const { again } of calls) again()
  }
  try {
    const capture = backend.capture(enqueue)
    capture.replay()
    return capture
  } catch (error) {
    process.stderr.write(`${calls[0]!.kind}: not captured (${(error as Error).message}), so the host's calls count, too\n`)
    return { replay: enqueue, free: () => {} }
  }
}

function print({ name, lines, whole, measured }: Section): void {
  const sum = lines.reduce((all, line) => all + line.sum, 0)
  process.stdout.write(`\n${name}\n${'µs'.padStart(10)}  share  calls  µs each  TFLOP/s   TB/s\n`)
  for (const line of lines) {
    const figures = [
      line.sum.toFixed(1).padStart(10),
      `${((100 * line.sum) / sum).toFixed(1)} %`.padStart(7),
      String(line.count).padStart(5),
      (line.sum / line.count).toFixed(2).padStart(8),
    ]
    const product =
      line.flops > 0
        ? `${(line.flops / line.sum / 1e6).toFixed(1).padStart(8)} ${(line.weightBytes / line.sum / 1e6).toFixed(2).padStart(6)}`
        : ' '.repeat(15)
    process.stdout.write(`${figures.join(' ')} ${product}  ${line.kind}\n`)
  }
  const engine = measured > 0 ? `; the engine, uncaptured here, took ${measured.toFixed(0)}` : ''
  process.stdout.write(`${sum.toFixed(1).padStart(10)}  in all; the whole pass as one capture ${whole.toFixed(1)}${engine}\n`)
}

if (require.main === module) void main()
