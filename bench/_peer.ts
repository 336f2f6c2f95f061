// transformers + peft in a process of its own, driven round by round (bench/peers/transformers_peer.py).

import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { arborHome } from '../src/engine/arbor-home'
import { resolveModel } from '../src/engine/model-source'
import type { Shape } from './_engine'

export interface Peer {
  /** One round's seconds. */
  round(what: 'rollouts' | 'train-step'): Promise<number>
  readonly description: string
  close(): void
}

/** $ARBOR_PEER_PYTHON, or a private venv that is made at the first run; null with a reason when neither can be had. */
export function peerPython(): string {
  const given = process.env.ARBOR_PEER_PYTHON
  if (given) return given
  const venv = join(arborHome(), 'peers-venv')
  const python = join(venv, 'bin', 'python')
  if (!existsSync(join(venv, 'ready'))) {
    process.stderr.write(`making ${venv} with torch, transformers and peft\n`)
    execFileSync('python3', ['-m', 'venv', venv], { stdio: 'inherit' })
    execFileSync(python, ['-m', 'pip', 'install', '-q', 'torch==2.13.0', 'transformers==5.23.0', 'peft==0.21.2'], {
      stdio: 'inherit',
    })
    execFileSync('touch', [join(venv, 'ready')])
  }
  return python
}

/** The peer's options for this step of this model; its weights are random, so it needs the shape alone (SmolLM2's is its own). */
export async function peerShape(model: string, shape: Shape): Promise<string[]> {
  const { kind, path } = await resolveModel(model)
  const { groups, rollouts, prompt, common, fresh } = shape
  const sizes = { groups, rollouts, prompt, common, new: fresh }
  const options = Object.entries(sizes).flatMap(([key, value]) => [`--${key}`, String(value)])
  return kind === 'gguf' ? options : [...options, '--config', join(path, 'config.json')]
}

export async function startPeer(options: readonly string[]): Promise<Peer> {
  const script = join(__dirname, '..', '..', 'bench', 'peers', 'transformers_peer.py')
  const child = spawn(peerPython(), [script, ...options], { stdio: ['pipe', 'pipe', 'ignore'] })
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]()
  const first = await next(lines, child)
  return {
    description: JSON.stringify(first),
    async round(what) {
      child.stdin!.write(`${what}\n`)
      return (await next(lines, child))['seconds'] as number
    },
    close: () => child.stdin!.end(),
  }
}

async function next(lines: AsyncIterator<string>, child: ChildProcess): Promise<Record<string, unknown>> {
  const { value, done } = await lines.next()
  if (done) throw new Error(`the peer ended with exit code ${child.exitCode}; run it by hand to see why`)
  return JSON.parse(value) as Record<string, unknown>
}
