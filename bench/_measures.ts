// What stands beside the seconds: speed of products against what the machine does at best, tokens a second, memory.

import { existsSync, readFileSync } from 'node:fs'
import type { EngineUnderTest } from './_engine'
import { median, type Row } from './_report'
import { peakSpeed } from './_work'

/** The most memory a process ever held, in MiB; null where /proc does not say. */
export function peakMemory(pid: number | 'self' = 'self'): number | null {
  const path = `/proc/${pid}/status`
  const found = existsSync(path) ? /^VmHWM:\s+(\d+) kB/m.exec(readFileSync(path, 'utf8')) : null
  return found ? Math.round(Number(found[1]) / 1024) : null
}

/** Measures of our engine's row; `tokens` are sampled or trained in a round. */
export async function measures(engine: EngineUnderTest, row: Row, round: { what: 'rollouts' | 'trainStep'; tokens: number }) {
  const memory = peakMemory() // before the large product below takes its own
  const seconds = median(row.rounds)
  const work = engine.work[round.what]
  const peak = await peakSpeed(engine.precision)
  return {
    precision: engine.precision,
    tokens_per_second: Math.round(round.tokens / seconds),
    gflops: Math.round(work / seconds / 1e9),
    peak_gflops: Math.round(peak / 1e9),
    floor_seconds: Number((work / peak).toFixed(3)),
    share_of_floor: Number((work / peak / seconds).toFixed(3)),
    peak_memory_mib: memory,
  }
}

export function measuresText(of: Awaited<ReturnType<typeof measures>>): string {
  return (
    `${of.precision}: ${of.tokens_per_second} tokens/s, products ${of.gflops} of ${of.peak_gflops} GFLOP/s ` +
    `(floor ${of.floor_seconds} s, ${Math.round(100 * of.share_of_floor)} % of it), memory ${of.peak_memory_mib ?? '?'} MiB`
  )
}
