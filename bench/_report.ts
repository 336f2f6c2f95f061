// What every benchmark prints: the machine, the commit, medians of interleaved rounds, and one JSON line at the end.

import { execFileSync } from 'node:child_process'
import { cpus, loadavg, totalmem } from 'node:os'

export interface Row {
  readonly name: string
  /** Seconds of each round. */
  readonly rounds: number[]
  readonly note?: string
}

export function machine(): Record<string, string | number> {
  const [cpu] = cpus()
  let commit = 'unknown'
  try {
    commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim()
  } catch (cause) {
    if (!(cause instanceof Error)) throw cause // no git here: the commit stays unknown
  }
  return {
    cpu: cpu?.model ?? 'unknown',
    cores: cpus().length,
    memory_gib: Math.round(totalmem() / 2 ** 30),
    node: process.version,
    commit,
    load: Number(loadavg()[0]!.toFixed(2)),
  }
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** Runs every contender once a round, in turn, so that a slow minute of the machine hits all of them. */
export async function interleave(
  rounds: number,
  contenders: { name: string; note?: string; run: () => Promise<number> }[],
): Promise<Row[]> {
  const rows: Row[] = contenders.map(({ name, note }) => ({ name, note, rounds: [] }))
  for (let round = 0; round < rounds; round++)
    for (const [i, contender] of contenders.entries()) {
      const seconds = await contender.run()
      rows[i]!.rounds.push(seconds)
      process.stderr.write(`round ${round + 1}/${rounds}  ${contender.name}  ${seconds.toFixed(2)} s\n`)
    }
  return rows
}

/** A table with each row's median and its ratio to the first row, then the same as JSON. */
export function print(title: string, rows: readonly Row[], extra: Record<string, unknown> = {}): void {
  const about = machine()
  const base = median(rows[0]!.rounds)
  const lines = rows.map((row) => {
    const mid = median(row.rounds)
    const spread = `${Math.min(...row.rounds).toFixed(2)}–${Math.max(...row.rounds).toFixed(2)}`
    return `${row.name.padEnd(44)} ${mid.toFixed(2).padStart(8)} s  (${spread})  ${(mid / base).toFixed(2)}×  ${row.note ?? ''}`
  })
  process.stdout.write(`${title}\n${JSON.stringify(about)}\n${lines.join('\n')}\n`)
  process.stdout.write(
    `${JSON.stringify({ title, ...about, ...extra, rows: rows.map((row) => ({ ...row, median: median(row.rounds) })) })}\n`,
  )
}
