// transformers + peft on the same GPU with the same sizes (bench/peers/gpu_peer.py), one process for each workload, bounded in time.

import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { packageRoot } from '../src/engine/package-root'
import type { GpuRow } from './_gpu-rows'
import type { Part, Workload } from './_gpu-work'

interface PeerAnswer {
  readonly peer: string
  readonly rows: readonly {
    readonly part: Part
    readonly name: string
    readonly unit: GpuRow['unit']
    readonly values: number[]
    readonly note?: string
  }[]
}

const PYTHON = () => process.env['ARBOR_PEER_PYTHON'] ?? 'python3'

/** Null where Python has what the peer needs, else the reason. */
export function peerMissing(): string | null {
  const asked = spawnSync(PYTHON(), ['-c', 'import torch, transformers, peft'], { encoding: 'utf8', timeout: 120_000 })
  return asked.status === 0 ? null : (asked.stderr || String(asked.error)).trim().split('\n').at(-1)!
}

/** Rows that come in time; the reason stands in a row's note when none did. */
export function peerRows(
  workload: Workload,
  parts: readonly Part[],
  wishes: { repeat: number; device: string; limit: number },
): GpuRow[] {
  const { groups, rollouts, prompt, common, fresh } = workload.step
  const sizes = {
    groups,
    rollouts,
    prompt,
    common,
    new: fresh,
    repeat: wishes.repeat,
    device: wishes.device,
    limit: wishes.limit,
  }
  const asked = parts.filter((part) => part === 'rollouts' || part === 'train' || part === 'step')
  const options = Object.entries(sizes).flatMap(([name, value]) => [`--${name}`, String(value)])
  const script = join(packageRoot(), 'bench', 'peers', 'gpu_peer.py')
  const work = asked.includes('step') ? 'rollouts,train' : asked.join()
  if (work === '') return []
  const ran = spawnSync(PYTHON(), [script, '--config', JSON.stringify(workload.json), '--work', work, ...options], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: (wishes.limit + 120) * 1000,
  })
  const answers = (ran.stdout ?? '').split('\n').filter((line) => line.startsWith('{'))
  const failed =
    ran.status === 0
      ? []
      : [
          {
            part: asked[0]!,
            name: 'peer',
            unit: 'ms' as const,
            values: [],
            note: `ended early: ${ran.error?.message ?? `exit code ${ran.status}`}`,
          },
        ]
  const rows = answers.flatMap((line) => (JSON.parse(line) as PeerAnswer).rows)
  return [...rows, ...failed].map(({ name, ...one }) => ({ workload: workload.name, who: name, ...one }))
}
