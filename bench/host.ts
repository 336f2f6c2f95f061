// The host's part of a decode step and of a training step on a GPU: milliseconds of our thread, calls into the library, bytes that are uploaded and
// bytes that the garbage collector gets, by a library that answers at once and computes nothing (so without what a driver takes of each call).
// Behind it how long the device waits for us in a whole step, by one that is only a clock.
// npm run bench -- host [--model 1.5b,135m] [--rows 32,512] [--rounds 5] [--json FILE] [--waits: no more than the waits]

import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { OptionError } from '../src/errors'
import { stepText, type Workload, workloads } from './_gpu-work'
import { type HostEngine, type HostStep, openHostEngine } from './_host-engine'
import { deviceWaits, type Waits } from './_host-waits'
import { machine, median } from './_report'

/** Before it counts: V8 has compiled what runs often, passes are recorded. */
const WARM_UP = 2
/** Of each round's decode steps, those that record the pass. */
const FIRST = 3
/** Of whole steps, those in which V8 compiles, and how many are a round of the others. */
const [WARM_UP_STEPS, STEPS_A_ROUND] = [6, 4]

interface Line {
  readonly name: string
  readonly steps: HostStep[]
}

async function main(): Promise<void> {
  const { models, rows, rounds, json, waitsAlone } = options()
  const lines: Line[] = []
  const waits: { model: string; step: string; parts: Waits[] }[] = []
  for (const workload of models) {
    if (!waitsAlone) lines.push(...(await measure(workload, rows, rounds)))
    const parts = await deviceWaits(workload, { warmUp: WARM_UP_STEPS, rounds: STEPS_A_ROUND * rounds })
    waits.push({ model: workload.model, step: stepText(workload.step), parts })
  }
  process.stdout.write(
    `host: one step's JavaScript and calls, by a library that computes nothing\n${JSON.stringify(machine())}\n`,
  )
  for (const line of lines) process.stdout.write(`${text(line)}\n`)
  for (const { model, step, parts } of waits)
    for (const part of parts) process.stdout.write(`${model}, ${step}: ${waitsText(part)}\n`)
  const found = JSON.stringify({ title: 'host', ...machine(), rows: lines.map(summary), waits })
  if (json === undefined) process.stdout.write(`${found}\n`)
  else writeFileSync(json, `${found}\n`)
}

/** Interleaved, so that a slow minute of the machine hits all lines of a model. */
async function measure(workload: Workload, rows: readonly number[], rounds: number): Promise<Line[]> {
  const engine = openHostEngine(workload)
  const parts: { name: string; run: (engine: HostEngine) => Promise<HostStep[]> }[] = [
    ...rows.map((count) => ({
      name: `${workload.model}, decode of ${count}`,
      run: async (one: HostEngine) => (await one.decode(count)).slice(FIRST),
    })),
    ...rows.map((count) => ({
      name: `${workload.model}, ${count} that end unevenly`,
      run: async (one: HostEngine) => (await one.unevenDecode(count)).slice(FIRST),
    })),
    { name: `${workload.model}, training step`, run: async (one) => [await one.train()] },
  ]
  const lines = parts.map(({ name }): Line => ({ name, steps: [] }))
  for (let round = -WARM_UP; round < rounds; round++)
    for (const [i, { run }] of parts.entries()) {
      const steps = await run(engine)
      if (round >= 0) lines[i]!.steps.push(...steps)
    }
  engine.close()
  return lines
}

function summary({ name, steps }: Line) {
  const of = (pick: (step: HostStep) => number) => median(steps.map(pick))
  const garbage = steps.flatMap(({ garbageBytes }) => garbageBytes ?? [])
  const mean = (pick: (step: HostStep) => number) => steps.reduce((sum, step) => sum + pick(step), 0) / steps.length
  return {
    name,
    steps: steps.length,
    milliseconds: Number(of(({ milliseconds }) => milliseconds).toFixed(3)),
    best_milliseconds: Number(Math.min(...steps.map(({ milliseconds }) => milliseconds)).toFixed(3)),
    cpu_milliseconds: Number(mean(({ cpuMilliseconds }) => cpuMilliseconds).toFixed(3)),
    calls: of(({ calls }) => calls),
    mean_calls: Math.round(mean(({ calls }) => calls)),
    uploaded_bytes: of(({ uploadedBytes }) => uploadedBytes),
    mean_uploaded_bytes: Math.round(mean(({ uploadedBytes }) => uploadedBytes)),
    garbage_bytes: garbage.length === 0 ? null : Math.round(median(garbage)),
  }
}

function text(line: Line): string {
  const of = summary(line)
  const kib = (bytes: number | null) => (bytes === null ? '?' : (bytes / 1024).toFixed(1))
  return (
    `${of.name.padEnd(40)} ${of.milliseconds.toFixed(3).padStart(8)} ms (best ${of.best_milliseconds.toFixed(3)}, CPU ${of.cpu_milliseconds.toFixed(3)}), ` +
    `${of.calls} calls (on average ${of.mean_calls}), ${kib(of.uploaded_bytes)} KiB up (on average ${kib(of.mean_uploaded_bytes)}), ${kib(of.garbage_bytes)} KiB of garbage`
  )
}

function waitsText({ name, busy, before, between, after, mean }: Waits): string {
  const ms = (value: number) => value.toFixed(2)
  return (
    `${name} of ${busy.toFixed(1)} ms on the device, which waits ${ms(before)} ms before, ${ms(between)} between, ${ms(after)} after ` +
    `(all of it ${ms(mean)} on average)`
  )
}

function options() {
  const plain = { type: 'string' } as const
  const { values } = parseArgs({
    options: { model: plain, rows: plain, rounds: plain, json: plain, waits: { type: 'boolean', default: false } },
  })
  const whole = (flag: string, value: string) => {
    const number = Number(value)
    if (Number.isInteger(number) && number > 0) return number
    throw new OptionError(`--${flag} ${value}: a whole number from 1 up is needed.`)
  }
  return {
    models: workloads(values.model ?? '1.5b,135m', {}),
    rows: (values.rows ?? '32,512').split(',').map((value) => whole('rows', value)),
    rounds: whole('rounds', values.rounds ?? '5'),
    json: values.json,
    waitsAlone: values.waits,
  }
}

void main()
