// Rollouts and training per second on one GPU and on several, each engine in a thread of its own as in the server. npm run bench -- pool --help
//
// Decoding reads all weights for every token, however few rows there are, so the same step divided among GPUs gains little; what counts is how many
// rollouts and updates several GPUs make in the time in which one makes its own. Both are measured: the same step, and one as many times as large.
//
// Runs as a bundle, too, as bench/gpu does.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { isMainThread } from 'node:worker_threads'
import type { Engine, ModelInfo } from '../src/engine/engine'
import { EnginePool } from '../src/engine/engine-pool'
import '../src/engine/engine-worker'
import { roomForWaits } from '../src/engine/open-engine'
import type { Device } from '../src/engine/ops/open-backend'
import type { PrecisionWish } from '../src/engine/precision'
import { uniforms } from '../src/engine/random'
import { WorkerEngine } from '../src/engine/worker-engine'
import { drawPrompts, LORA, type Rolled, SAMPLING, sequencesOf, UPDATE } from './_gpu-engine'
import { type Workload, workloads } from './_gpu-work'
import { writeRandomModel } from './_random-model'
import { machine, median } from './_report'

const HELP = `Usage: npm run bench -- pool [options]

  --model NAMES    of 1.5b (default), 7b, 135m, 135m-64x8, tiny       --gpus LIST   numbers of GPUs, the first to compare with (default 1,2)
  --repeat N       rounds of each (default 5)                        --warmup N    rounds before them (default 3)
  --device D       cuda (default), cpu, tfjs: as many engines on it  --precision P bf16, f32, auto (default)
  --json FILE      the last line, as a file`

interface Wishes {
  readonly device: Device
  readonly precision: PrecisionWish
  readonly repeat: number
  readonly warmUp: number
}

/** Seconds of each round. */
interface Times {
  readonly rollouts: number[]
  readonly train: number[]
}

interface Measured {
  readonly gpus: number
  readonly same: Times
  readonly larger: Times
  /** Of the first round of the same step: what all numbers of GPUs should agree on. */
  readonly tokens: readonly string[]
  readonly gradNorm: number
}

async function main(): Promise<void> {
  const text = { type: 'string' } as const
  const flags = { model: text, gpus: text, repeat: text, warmup: text, device: text, precision: text, json: text }
  const { values } = parseArgs({ options: { ...flags, help: { type: 'boolean', short: 'h' } } })
  if (values.help) return void process.stdout.write(`${HELP}\n`)
  const wishes: Wishes = {
    device: (values.device ?? 'cuda') as Device, // openBackend refuses others
    precision: (values.precision ?? 'auto') as PrecisionWish,
    repeat: Number(values.repeat ?? 5),
    warmUp: Number(values.warmup ?? 3),
  }
  const counts = (values.gpus ?? '1,2').split(',').map(Number)
  roomForWaits(Math.max(...counts))
  const rows: object[] = []
  for (const workload of workloads(values.model ?? '1.5b', {})) {
    const folder = mkdtempSync(join(tmpdir(), 'arbor-bench-pool-'))
    try {
      writeRandomModel(folder, workload.json)
      const all: Measured[] = []
      for (const gpus of counts) all.push(await measure(workload, folder, gpus, wishes))
      rows.push(...all.flatMap((one) => report(workload, one, all[0]!)))
    } finally {
      rmSync(folder, { recursive: true })
    }
  }
  const line = JSON.stringify({ bench: 'pool', ...machine(), ...wishes, rows })
  process.stdout.write(`${line}\n`)
  if (values.json !== undefined) writeFileSync(values.json, `${line}\n`)
}

async function measure(workload: Workload, folder: string, gpus: number, wishes: Wishes): Promise<Measured> {
  const { device, precision } = wishes
  const engines = Array.from({ length: gpus }, (_, index) => new WorkerEngine({ device, precision, index }))
  const engine = gpus === 1 ? engines[0]! : new EnginePool(engines, { log: say })
  try {
    const info = await engine.load({ name: workload.name, kind: 'folder', path: folder })
    say(`${workload.name} on ${info.deviceDescription}, ${info.dtype}`)
    await engine.openPolicy('job', { lora: LORA, seed: 0 })
    const first = await rounds(engine, info, workload, { ...wishes, times: 1 })
    const larger = gpus === 1 ? first : await rounds(engine, info, workload, { ...wishes, times: gpus })
    return { gpus, same: first.times, larger: larger.times, tokens: first.tokens, gradNorm: first.gradNorm }
  } finally {
    await engine.close()
  }
}

async function rounds(engine: Engine, info: ModelInfo, { name, step }: Workload, wishes: Wishes & { readonly times: number }) {
  const work = { ...step, groups: step.groups * wishes.times }
  const random = uniforms(7, 0)
  const times: Times = { rollouts: [], train: [] }
  let tokens: string[] = []
  let gradNorm = 0
  let seed = 0
  for (let round = 0; round < wishes.warmUp + wishes.repeat; round++) {
    const asked = drawPrompts(work, info.vocab, random).map((prompt) => ({
      prompt,
      seeds: Array.from({ length: work.rollouts }, () => ++seed),
    }))
    const begun = performance.now()
    const rolled = await Promise.all(
      asked.map(async (one): Promise<Rolled> => {
        const request = { ...one, policy: 'job', maxNewTokens: work.fresh, sampling: SAMPLING, stopTokenIds: [] }
        return { ...one, completions: await engine.generate(request) }
      }),
    )
    const sampled = performance.now()
    const sequences = sequencesOf(rolled)
    const length = sequences.reduce((sum, { completion }) => sum + completion.length, 0)
    const dLogprobs = Float32Array.from({ length }, () => (random() - 0.5) / length)
    const prepared = performance.now()
    const stats = await engine.trainStep('job', sequences, { dLogprobs }, UPDATE)
    const seconds = [(sampled - begun) / 1000, (performance.now() - prepared) / 1000] as const
    const which = round < wishes.warmUp ? 'warm-up' : 'round'
    say(`${name}, step × ${wishes.times}, ${which}: ${ms(seconds[0])} + ${ms(seconds[1])} ms, ${stats.tokens} tokens`)
    if (round === 0) [tokens, gradNorm] = [sequences.map(({ completion }) => completion.join()), stats.gradNorm]
    if (round < wishes.warmUp) continue
    times.rollouts.push(seconds[0])
    times.train.push(seconds[1])
  }
  return { times, tokens, gradNorm }
}

function report({ name, step }: Workload, one: Measured, base: Measured): object[] {
  const rollouts = step.groups * step.rollouts
  const alike = one.tokens.filter((tokens, i) => tokens === base.tokens[i]).length / base.tokens.length
  const steps = one.gpus === 1 ? (['same'] as const) : (['same', 'larger'] as const)
  return steps.map((which) => {
    const perSecond = (times: Times, of: number) => (of * times.rollouts.length) / sum([...times.rollouts, ...times.train])
    const rate = perSecond(one[which], which === 'same' ? rollouts : rollouts * one.gpus)
    const ratio = rate / perSecond(base[which], which === 'same' ? rollouts : rollouts * base.gpus)
    const [sampled, trained] = [median(one[which].rollouts), median(one[which].train)]
    const what = which === 'same' ? 'the same step' : `a step ${one.gpus} times as large`
    say(
      `${name}, ${one.gpus} GPU${one.gpus === 1 ? '' : 's'}, ${what}: rollouts ${ms(sampled)} ms, training ${ms(trained)} ms, ` +
        `${rate.toFixed(1)} rollouts a second sampled and trained, ${ratio.toFixed(2)} × that of ${base.gpus}`,
    )
    const agreement = which === 'same' ? { sameTokens: alike, gradNorm: one.gradNorm } : {}
    return {
      workload: name,
      gpus: one.gpus,
      step: which,
      rollouts: sampled,
      train: trained,
      perSecond: rate,
      ratio,
      ...agreement,
    }
  })
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}

function ms(seconds: number): string {
  return (1000 * seconds).toFixed(1)
}

function say(line: string): void {
  process.stderr.write(`${line}\n`)
}

if (isMainThread && require.main === module) void main()
