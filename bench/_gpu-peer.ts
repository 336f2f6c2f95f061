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

interface PeerWishes {
  readonly repeat: number
  readonly device: string
  /** Seconds for rollouts, and as many for training. */
  readonly limit: number
}

/** Rows that come in time. Rollouts and training run in processes of their own: what one left on the GPU must not narrow the other. */
export function peerRows(workload: Workload, parts: readonly Part[], wishes: PeerWishes): GpuRow[] {
  const whole = parts.includes('step')
  return (['rollouts', 'train'] as const)
    .filter((work) => whole || parts.includes(work))
    .flatMap((work) => rowsOf(workload, work, wishes))
}

function rowsOf({ name: workload, step, json }: Workload, work: 'rollouts' | 'train', wishes: PeerWishes): GpuRow[] {
  const { groups, rollouts, prompt, common, fresh } = step
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
  const options = Object.entries({ work, config: JSON.stringify(json), ...sizes }).flatMap(([name, value]) => [
    `--${name}`,
    String(value),
  ])
  const script = join(packageRoot(), 'bench', 'peers', 'gpu_peer.py')
  const ran = spawnSync(PYTHON(), ['-W', 'ignore', script, ...options], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: (wishes.limit + 60) * 1000,
  })
  const rows = (ran.stdout ?? '')
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .flatMap((line) => (JSON.parse(line) as PeerAnswer).rows)
    .map(({ name: who, ...one }) => ({ workload, who, ...one }))
  if (ran.status === 0) return rows
  const note = `ended early: ${ran.error?.message ?? `exit code ${ran.status}`}`
  return [...rows, { workload, part: work, who: 'transformers + peft', unit: 'ms', values: [], note }]
}
