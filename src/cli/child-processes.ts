// Remembers the processes that a notebook's cells start, so that none outlives the run.

import type { ChildProcess } from 'node:child_process'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'

const CHANNEL = 'child_process'
const GRACE_MS = 8000

export class ChildProcesses {
  private readonly alive = new Set<ChildProcess>()
  private readonly listener = (message: unknown) => {
    const child = (message as { process: ChildProcess }).process
    this.alive.add(child)
    child.once('exit', () => this.alive.delete(child))
  }

  constructor() {
    subscribe(CHANNEL, this.listener)
  }

  /** Asks what still runs to end (SIGTERM), waits, and kills what doesn't. */
  async end(graceMs = GRACE_MS): Promise<void> {
    unsubscribe(CHANNEL, this.listener)
    const left = [...this.alive].filter((child) => child.pid !== undefined)
    const ended = Promise.all(left.map((child) => new Promise<void>((resolve) => child.once('exit', () => resolve()))))
    for (const child of left) child.kill('SIGTERM')
    const timer = setTimeout(() => {
      for (const child of this.alive) child.kill('SIGKILL')
    }, graceMs)
    await ended
    clearTimeout(timer)
  }
}
