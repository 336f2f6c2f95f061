// What a run was made with, for its environment.json: versions, machine, device, seed.

import { cpus, totalmem } from 'node:os'
import type { ModelInfo } from '../engine/engine'

export function runEnvironment(version: string, model: ModelInfo, seed: number): Record<string, unknown> {
  const cpu = cpus()
  return {
    arbor_nb: version,
    node: process.version,
    platform: `${process.platform} ${process.arch}`,
    processor: cpu[0]?.model ?? 'unknown',
    threads: cpu.length,
    memory_bytes: totalmem(),
    device: model.deviceDescription,
    seed,
    model,
  }
}
