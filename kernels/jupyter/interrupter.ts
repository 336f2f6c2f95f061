// Stops what the main thread does, from the worker. A cell that waits is told by a message; a loop hears none, so after a moment without
// an answer V8 is asked to terminate what runs. State is kept: a termination ends one call stack, nothing else.

import { Session } from 'node:inspector'
import { setTimeout as sleep } from 'node:timers/promises'
import { BEFORE_TERMINATION } from './async-checks'
import { FLAG, type ToMain } from './bridge'

/** How long a main thread that is merely busy may take to answer. */
const PATIENCE_MS = 400
const GIVE_UP_MS = 5000

export class Interrupter {
  private session: Session | null = null
  private count = 0
  private acknowledged = 0

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
    const begun = Date.now()
    Atomics.add(this.flags, FLAG.interrupts, 1)
    Atomics.notify(this.flags, FLAG.pending)
    while (Date.now() - begun < GIVE_UP_MS) {
      const id = ++this.count
      this.post({ kind: 'interrupt', id })
      for (let waited = 0; waited < PATIENCE_MS; waited += 10) {
        if (this.acknowledged >= id) return true
        await sleep(10)
      }
      if (Atomics.load(this.flags, FLAG.compiling) === 0) this.terminate()
    }
    return false
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
