// Stops what the main thread does, from the worker. A cell that waits is told by a message; a loop hears none, so after a moment without
// an answer V8 is asked to terminate what runs. State is kept: a termination ends one call stack, nothing else.

import { Session } from 'node:inspector'
import { setTimeout as sleep } from 'node:timers/promises'
import { BEFORE_TERMINATION } from './async-checks'
import { FLAG, type ToMain } from './bridge'

/** How long a main thread that is merely busy may take to answer. */
const PATIENCE_MS = 400
/** The same for code that heeds the signal: cut off in the middle of its work it could not end by itself. */
const HEEDING_PATIENCE_MS = 10_000
const GIVE_UP_MS = 5000

export class Interrupter {
  private session: Session | null = null
  private count = 0
  private acknowledged = 0
  /** Interrupts that wait for an answer. */
  private open = 0

  constructor(
    private readonly flags: Int32Array,
    private readonly post: (message: ToMain) => void,
  ) {}

  /** The main thread has read interrupt `id`. */
  acknowledge(id: number): void {
    this.acknowledged = Math.max(this.acknowledged, id)
  }

  /** False when nothing could stop what runs (native code that does not return). */
  async interrupt(): Promise<boolean> {
    Atomics.add(this.flags, FLAG.interrupts, 1)
    Atomics.notify(this.flags, FLAG.pending)
    this.open++
    try {
      // Whoever asks again has no patience left.
      const trusted = Atomics.load(this.flags, FLAG.heeds) === 1
      if (trusted && (await this.answered(HEEDING_PATIENCE_MS, () => this.open > 1))) return true
      for (const begun = Date.now(); Date.now() - begun < GIVE_UP_MS; ) {
        if (await this.answered(PATIENCE_MS)) return true
        if (Atomics.load(this.flags, FLAG.compiling) === 0) this.terminate()
      }
      return false
    } finally {
      this.open--
    }
  }

  /** Asks the main thread and waits for its answer. */
  private async answered(patience: number, enough: () => boolean = () => false): Promise<boolean> {
    const id = ++this.count
    this.post({ kind: 'interrupt', id })
    for (const begun = Date.now(); Date.now() - begun < patience && !enough(); await sleep(10))
      if (this.acknowledged >= id) return true
    return this.acknowledged >= id
  }

  /** Ends what the main thread runs, whatever it is. */
  terminate(): void {
    this.session ??= connect()
    this.session.post('Runtime.evaluate', { expression: BEFORE_TERMINATION })
    this.session.post('Runtime.terminateExecution')
  }

  /** Must precede the end of the process, or Node waits for a debugger. */
  close(): void {
    this.session?.disconnect()
    this.session = null
  }
}

function connect(): Session {
  const session = new Session()
  session.connectToMainThread()
  return session
}
