// Rows of bench/gpu: a quantity's repetitions against its mark, as text and as data.

import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import type { Mark, Part, Workload } from './_gpu-work'
import { stepText } from './_gpu-work'
import { machine, median } from './_report'

export interface GpuRow {
  readonly workload: string
  readonly part: Part
  /** 'arbor-nb', or a peer by its name. */
  readonly who: string
  readonly unit: 'ms' | 'GiB' | 'nats' | '×'
  readonly values: readonly number[]
  readonly note?: string
  readonly mark?: Mark
}

const TITLES: Readonly<Record<Part, string>> = {
  rollouts: 'rollouts',
  train: 'training step, LoRA r16 all-linear',
  step: 'rollouts + training step',
  server: 'whole step through the server',
  memory: 'GPU memory',
  jobs: '8 adapters decoding together, to one',
  gap: '|rollout - training logprob|, mean',
}

export function row(workload: Workload, part: Part, unit: GpuRow['unit'], values: readonly number[], note?: string): GpuRow {
  const mark = workload.marks[part]
  return {
    workload: workload.name,
    part,
    who: 'arbor-nb',
    unit,
    values,
    ...(note !== undefined && { note }),
    ...(mark && { mark }),
  }
}

/** GiB in use on the first GPU by everybody; null where no GPU answers. */
export function usedMemory(): number | null {
  const asked = smi('memory.used')
  return asked === null ? null : Number(asked) / 1024
}

function smi(fields: string): string | null {
  const asked = spawnSync('nvidia-smi', [`--query-gpu=${fields}`, '--format=csv,noheader,nounits'], {
    encoding: 'utf8',
    timeout: 10_000,
  })
  return asked.status === 0 ? asked.stdout.trim().split('\n')[0]!.trim() : null
}

/** Whether the median is within the reach, the mark, or neither; null without a mark. */
function verdict({ values, mark }: GpuRow): 'reach' | 'mark' | 'missed' | null {
  if (!mark || values.length === 0) return null
  const mid = median(values)
  if (mark.reach !== undefined && mid <= mark.reach) return 'reach'
  return mid <= mark.mark ? 'mark' : 'missed'
}

export function printRows(
  all: readonly { workload: Workload; rows: readonly GpuRow[] }[],
  facts: Record<string, unknown>,
  json?: string,
): void {
  const about = { ...machine(), gpu: smi('name,driver_version'), ...facts }
  process.stdout.write(`gpu: ${JSON.stringify(about)}\n`)
  for (const { workload, rows } of all) {
    process.stdout.write(`\n${workload.model}, ${stepText(workload.step)}\n`)
    for (const one of rows) process.stdout.write(`${line(one)}\n`)
  }
  const data = all.map(({ workload, rows }) => ({
    name: workload.name,
    model: workload.model,
    step: workload.step,
    rows: rows.map((one) => ({ ...one, median: one.values.length > 0 ? median(one.values) : null, verdict: verdict(one) })),
  }))
  const text = JSON.stringify({ title: 'gpu', ...about, workloads: data })
  process.stdout.write(`\n${text}\n`)
  if (json !== undefined) writeFileSync(json, `${text}\n`)
}

function line(one: GpuRow): string {
  const { part, who, unit, values, mark, note } = one
  const title = who === 'arbor-nb' ? TITLES[part] : `  ${who}`
  const measured =
    values.length === 0
      ? `${'-'.padStart(9)} ${' '.repeat(25)}`
      : `${figure(median(values), unit).padStart(9)} ${unit.padEnd(4)} ${`(${figure(Math.min(...values), unit)}–${figure(Math.max(...values), unit)})`.padEnd(20)}`
  const held = mark
    ? `mark ${mark.mark}${mark.reach === undefined ? '' : `, reach ${mark.reach}`}: ${verdict(one) ?? 'not measured'}`
    : ''
  return `  ${title.padEnd(46)} ${measured} ${held.padEnd(34)} ${note ?? ''}`.trimEnd()
}

function figure(value: number, unit: GpuRow['unit']): string {
  if (unit === 'nats') return value.toExponential(2)
  return value.toFixed(unit === 'ms' ? 1 : 2)
}
