// Uploads a finished W&B run by wandb's own command, where that is installed and a key is known. Else the run waits on disk.

import { spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { delimiter, join } from 'node:path'

export interface SyncOptions {
  /** Hears what became of the upload. */
  readonly say: (line: string) => void
  /** Cuts the upload off. */
  readonly signal?: AbortSignal
  readonly env?: NodeJS.ProcessEnv
}

/** An upload that hangs is given up after this; `wandb sync` by hand begins where it was. */
const PATIENCE_MS = 10 * 60_000

/** Uploads in the background. The promise is kept whatever happens; undefined where there is nothing to do. */
export function syncRun(dir: string, id: string, { say, signal, env = process.env }: SyncOptions): Promise<void> | undefined {
  const why = whyNot(env)
  if (why !== null) {
    say(`W&B: ${why}. The run lies in ${dir}; upload it with: wandb sync ${dir}`)
    return undefined
  }
  return new Promise((resolve) => {
    const itsLogs = { WANDB_DIR: join(dir, '..', '..') } // beside the run, not wherever the server was started
    const child = spawn('wandb', ['sync', dir], {
      env: { ...env, ...itsLogs },
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: PATIENCE_MS,
      ...(signal && { signal }),
    })
    const lines: string[] = []
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data: Buffer) => lines.push(String(data)))
    child.once('error', (error) => lines.push(error.message))
    child.once('close', () => {
      // It ends with 0 also when nothing was uploaded; the mark beside the log is what counts.
      const done = existsSync(join(dir, `run-${id}.wandb.synced`))
      say(done ? `W&B: uploaded ${dir}` : `W&B: not uploaded (${lastLine(lines)}). Try again with: wandb sync ${dir}`)
      resolve()
    })
  })
}

function whyNot(env: NodeJS.ProcessEnv): string | null {
  if (env['WANDB_MODE'] === 'offline') return 'WANDB_MODE is offline'
  const found = (env['PATH'] ?? '').split(delimiter).some((folder) => folder !== '' && existsSync(join(folder, 'wandb')))
  if (!found) return "wandb's client is not installed here (pip install wandb)"
  return hasKey(env) ? null : 'no key is known (wandb login, or WANDB_API_KEY)'
}

/** A key in the environment, or an entry that `wandb login` wrote for the host. */
function hasKey(env: NodeJS.ProcessEnv): boolean {
  if ((env['WANDB_API_KEY'] ?? '') !== '') return true
  const netrc = env['NETRC'] ?? join(env['HOME'] ?? homedir(), '.netrc')
  const host = /^https?:\/\/([^/:]+)/.exec(env['WANDB_BASE_URL'] ?? '')?.[1] ?? 'api.wandb.ai'
  return existsSync(netrc) && readFileSync(netrc, 'utf8').split(/\s+/).includes(host)
}

function lastLine(parts: readonly string[]): string {
  return parts.join('').trim().split('\n').at(-1) ?? ''
}
