// Calls that are made at one moment, kept back until the moment is over. The requests of a step reach a server a millisecond apart; sent on one by
// one, the first is a pass of its own when the others come, and they decode out of step from then on.

/** Turns of the event loop without a new call after which nobody else is on the way. */
const QUIET_TURNS = 2
/**
 * A stream of calls that never pauses is sent on all the same. The 64 prompts of a large step take 50 ms to read; sent on half-way, the first half would
 * be decoded alone, and the second after it: in nearly twice as many passes.
 */
const LONGEST_MS = 100

export class GatheredCalls<Call> {
  #held: Call[] = []
  #since = 0
  #quiet = 0

  /** @param send takes what was gathered, in order */
  constructor(private readonly send: (calls: readonly Call[]) => void) {}

  /** Keeps a call back; it goes with those that come before the event loop has nothing more to read. */
  add(call: Call): void {
    this.#quiet = 0
    if (this.#held.push(call) > 1) return
    this.#since = performance.now()
    setImmediate(() => this.#turn())
  }

  /** Sends what was gathered at once. */
  flush(): void {
    const calls = this.#held
    this.#held = []
    if (calls.length > 0) this.send(calls)
  }

  #turn(): void {
    if (this.#held.length === 0) return
    if (this.#quiet++ >= QUIET_TURNS || performance.now() - this.#since > LONGEST_MS) this.flush()
    else setImmediate(() => this.#turn())
  }
}
