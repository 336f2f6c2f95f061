// Every row of the CUDA engine's table of marks. npm run bench -- gpu --help
//
// Runs as a bundle, too (one file by esbuild, koffi and @tensorflow/tfjs beside it): it then is the server's command line and its engine's thread as
// well. The thread is looked for as dist/src/engine/engine-worker.js above the bundle: one line that requires the bundle will do.

import { isMainThread } from 'node:worker_threads'
import { run as serve } from '../src/cli/serve'
import '../src/engine/engine-worker'
import { type GpuEngine, openGpuEngine } from './_gpu-engine'
import { type GpuOptions, gpuOptions, help } from './_gpu-options'
import { peerMissing, peerRows } from './_gpu-peer'
import { type GpuRow, printRows, row, usedMemory } from './_gpu-rows'
import { serverSteps } from './_gpu-server'
import { JOBS, type Part, type Workload } from './_gpu-work'
import { peakMemory } from './_measures'
import { median } from './_report'

async function main(): Promise<void> {
  const options = gpuOptions(__filename)
  if (!options) return void process.stdout.write(`${help}\n`)
  const missing = options.peers ? peerMissing() : null
  if (missing !== null) say(`No peers: ${missing}`)
  const all: { workload: Workload; rows: GpuRow[] }[] = []
  const facts: Record<string, unknown> = { repeat: options.repeat, warmUp: options.warmUp }
  const before = usedMemory() // no context of this process yet: all rows count theirs
  for (const workload of options.workloads) {
    const rows: GpuRow[] = []
    all.push({ workload, rows })
    const parts = options.parts(workload)
    const attempt = async (what: readonly Part[], measure: () => Promise<readonly GpuRow[]>) => {
      if (what.length === 0) return
      try {
        rows.push(...(await measure()))
      } catch (error) {
        say(`${workload.name}, ${what.join()}: ${(error as Error).stack}`)
        rows.push(row(workload, what[0]!, 'ms', [], (error as Error).message.split('\n')[0]))
      }
    }
    await attempt(
      parts.filter((part) => part !== 'server'),
      () => ofEngine(workload, parts, { options, facts, before }),
    )
    await attempt(
      parts.filter((part) => part === 'server'),
      () => ofServer(workload, options),
    )
    if (options.peers && missing === null)
      rows.push(...peerRows(workload, parts, { repeat: options.repeat, device: options.device, limit: options.peerLimit }))
  }
  printRows(all, facts, options.json)
}

/** All parts that need no server, on one engine. */
async function ofEngine(
  workload: Workload,
  parts: readonly Part[],
  { options, facts, before }: { options: GpuOptions; facts: Record<string, unknown>; before: number | null },
): Promise<GpuRow[]> {
  const engine = await openGpuEngine(workload, options)
  facts['engine'] = engine.description
  say(`${workload.name}: loaded in ${engine.loadSeconds.toFixed(1)} s on ${engine.description}`)
  try {
    const times = await steps(engine, workload, options)
    const rows: GpuRow[] = [
      row(workload, 'rollouts', 'ms', times.rollouts, tokensNote(workload, times.rollouts)),
      row(
        workload,
        'train',
        'ms',
        times.train,
        `${engine.tokens.computed} tokens of ${engine.tokens.unshared}, ${engine.tokens.packs} packs`,
      ),
      row(
        workload,
        'step',
        'ms',
        times.rollouts.map((ms, i) => ms + times.train[i]!),
      ),
      row(
        workload,
        'gap',
        'nats',
        times.gap,
        `largest ${Math.max(...times.gapMax).toExponential(1)}${await same(engine, parts)}`,
      ),
      memoryRow(workload, before, engine),
    ]
    if (parts.includes('jobs')) rows.push(await ofJobs(engine, workload, options))
    return rows.filter(({ part }) => parts.includes(part))
  } finally {
    await engine.close()
  }
}

/** Rollouts and the update by them, in turn as a run does it. */
async function steps(engine: GpuEngine, workload: Workload, { warmUp, repeat }: GpuOptions) {
  const times = { rollouts: [] as number[], train: [] as number[], gap: [] as number[], gapMax: [] as number[] }
  for (let round = 0; round < warmUp + repeat; round++) {
    const rollouts = 1000 * (await engine.rollouts())
    const train = 1000 * (await engine.train())
    say(
      `${workload.name}, ${round < warmUp ? 'warm-up' : 'round'}: rollouts ${rollouts.toFixed(1)} ms, training ${train.toFixed(1)} ms`,
    )
    if (round < warmUp) continue
    times.rollouts.push(rollouts)
    times.train.push(train)
    times.gap.push(engine.gap!.mean)
    times.gapMax.push(engine.gap!.max)
  }
  return times
}

/**
 * Decoding of as many rollouts under each of eight adapters in one batch, to those under one: what lies behind the first tokens. Eight times the prompts are
 * eight times the work; beside it the same with these.
 */
async function ofJobs(engine: GpuEngine, workload: Workload, { warmUp, repeat }: GpuOptions): Promise<GpuRow> {
  await engine.openJobs(JOBS)
  const times = [1, JOBS].map((count) => ({ count, whole: [] as number[], first: [] as number[] }))
  for (let round = 0; round < warmUp + repeat; round++)
    for (const { count, whole, first } of times) {
      const [ms, start] = [1000 * (await engine.rollouts(count)), 1000 * (await engine.rollouts(count, 1))]
      const kind = round < warmUp ? 'warm-up' : 'round'
      say(`${workload.name}, ${kind}: ${count} adapters ${ms.toFixed(1)} ms, to the first tokens ${start.toFixed(1)} ms`)
      if (round < warmUp) continue
      whole.push(ms)
      first.push(start)
    }
  const [one, many] = times.map(({ whole, first }) => ({ whole, rest: whole.map((ms, i) => ms - first[i]!) }))
  const ratios = many!.rest.map((ms, i) => ms / one!.rest[i]!)
  const text = (ms: readonly number[]) => median(ms).toFixed(1)
  const whole = `${text(one!.whole)} to ${text(many!.whole)} ms, ${(median(many!.whole) / median(one!.whole)).toFixed(2)} ×`
  return row(
    workload,
    'jobs',
    '×',
    ratios,
    `${text(one!.rest)} ms one, ${text(many!.rest)} ms ${JOBS}; with their prompts ${whole}`,
  )
}

async function ofServer(workload: Workload, options: GpuOptions): Promise<GpuRow[]> {
  const before = usedMemory()
  const steps = await serverSteps(workload, {
    entry: options.serverEntry,
    device: options.device,
    precision: options.precision,
    warmUp: options.warmUp,
    repeat: options.repeat,
    used: usedMemory,
  })
  const { records, used, prompt } = steps
  const ms = (of: 'seconds_train' | 'seconds_between') => records.map((record) => 1000 * record[of])
  const [train, between] = [ms('seconds_train'), ms('seconds_between')]
  const lengths = median(records.map((record) => record.completion_length_mean))
  const gap = median(records.map((record) => record.logprob_gap_mean ?? Number.NaN))
  const memory = used === null || before === null ? '' : `, GPU memory ${(used - before).toFixed(2)} GiB`
  const note =
    `update ${median(train).toFixed(1)} ms, rest ${median(between).toFixed(1)} ms; prompts of ${prompt}, completions of ${lengths.toFixed(0)} tokens; ` +
    `gap ${gap.toExponential(1)}${memory}`
  return [
    row(
      workload,
      'server',
      'ms',
      train.map((one, i) => one + between[i]!),
      note,
    ),
  ]
}

function memoryRow(workload: Workload, before: number | null, engine: GpuEngine): GpuRow {
  const after = usedMemory()
  if (engine.used() === null)
    return row(workload, 'memory', 'GiB', [], `no memory of its own; the process held ${peakMemory()} MiB at most`)
  return row(
    workload,
    'memory',
    'GiB',
    [after !== null && before !== null ? after - before : engine.used()!],
    'all of this process, context included',
  )
}

async function same(engine: GpuEngine, parts: readonly Part[]): Promise<string> {
  if (!parts.includes('gap')) return ''
  const { together, alone } = await engine.sameAgain()
  return `; same seeds give the same tokens in ${percent(together)} of rollouts, a prompt alone in ${percent(alone)}`
}

function tokensNote({ step }: Workload, times: readonly number[]): string {
  return `${Math.round((1000 * step.groups * step.rollouts * step.fresh) / median(times))} tokens/s`
}

function percent(share: number): string {
  return `${Math.round(100 * share)} %`
}

function say(line: string): void {
  process.stderr.write(`${line}\n`)
}

if (isMainThread && require.main === module)
  if (process.argv[2] === 'serve') void serve(process.argv.slice(3)).then((code) => process.exit(code))
  else void main()
