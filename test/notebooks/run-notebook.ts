// What the tests of notebooks share: `arbor-nb run` as a process, with runs of its own, and the cells that come out.

import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { arborHome } from '../../src/engine/arbor-home'
import { CLI } from '../e2e/tiny'

export interface Output {
  readonly output_type: string
  readonly data?: Readonly<Record<string, unknown>>
  readonly ename?: string
}
export interface Cell {
  readonly cell_type: string
  readonly metadata?: { readonly tags?: readonly string[] }
  readonly execution_count?: number | null
  readonly outputs?: readonly Output[]
}

/** A home in `folder` with the models and the built library of this machine, but runs of its own. */
export function homeOfItsOwn(folder: string): string {
  const home = join(folder, 'home')
  mkdirSync(home)
  for (const kept of ['models', 'native'])
    if (existsSync(join(arborHome(), kept))) symlinkSync(join(arborHome(), kept), join(home, kept))
  return home
}

export interface Finished {
  readonly status: number | null
  readonly printed: string
}

/** Asynchronous, so that the test runner hears from its worker meanwhile. */
export function arborNb(args: readonly string[], env: Record<string, string> = {}): Promise<Finished> {
  const child = spawn(process.execPath, [CLI, ...args], { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  let printed = ''
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => (printed += text))
  return new Promise((resolve) => child.once('close', (status) => resolve({ status, printed })))
}
