// What cells show, on its way to Jupyter: neighbouring prints become one message, an update replaces one still waiting, and the
// rate stays under what Jupyter Server lets through (1000 messages and 1 MB a second, averaged over 3 s); beyond it drops, we wait.

import type { OutputEvent } from './bridge'

const FLUSH_MS = 50
/** A stream message as large as this leaves at once. */
const CHUNK = 64 * 1024
/** Burst and refill a second; a window of 3 s holds at most burst + 3 refills. */
const BYTES = { burst: 1_000_000, refill: 600_000 }
const MESSAGES = { burst: 1000, refill: 600 }
/** Output that an interrupt leaves. */
const KEPT_BY_INTERRUPT = 64 * 1024

export type Sink = (event: OutputEvent) => void

export class OutputQueue {
  private waiting: OutputEvent[] = []
  private timer: NodeJS.Timeout | null = null
  private readonly bytes = new Bucket(BYTES)
  private readonly messages = new Bucket(MESSAGES)
  private limited: { room: number; dropped: number } | null = null
  private emptied: (() => void)[] = []

  /** `onSent` is told the size of every event that left or was merged away. */
  constructor(
    private readonly sink: Sink,
    private readonly onSent: (units: number) => void,
  ) {}

  add(event: OutputEvent): void {
    if (this.refuses(event)) return
    const last = this.waiting.at(-1)
    if (event.kind === 'stream' && last?.kind === 'stream' && last.cell === event.cell && last.name === event.name) {
      if (last.text.length < CHUNK) {
        this.waiting[this.waiting.length - 1] = { ...last, text: last.text + event.text }
        this.schedule(last.text.length + event.text.length >= CHUNK ? 0 : FLUSH_MS)
        return
      }
    }
    const older = event.kind === 'display' && event.update ? this.waitingUpdate(event.displayId) : -1
    if (older >= 0) this.waiting[older] = event
    else this.waiting.push(event)
    const soon = (event.kind === 'stream' && event.text.length < CHUNK) || (event.kind === 'display' && event.update)
    this.schedule(soon ? FLUSH_MS : 0)
  }

  /** Resolves when all that was added has left. */
  flush(): Promise<void> {
    if (this.waiting.length === 0) return Promise.resolve()
    return new Promise((resolve) => {
      this.emptied.push(resolve)
      this.schedule(0)
    })
  }

  /** From now on, what is printed beyond a last bit is thrown away, so that an interrupted flood ends soon. */
  limit(): void {
    if (this.limited) return
    this.limited = { room: KEPT_BY_INTERRUPT, dropped: 0 }
    for (const event of this.waiting.splice(0)) this.add(event)
  }

  /** Undoes `limit`, with a note in `cell` of what was thrown away. */
  unlimit(cell: string): void {
    const dropped = this.limited?.dropped ?? 0
    this.limited = null
    const text = `\n… ${dropped} characters of output were dropped by the interrupt\n`
    if (dropped > 0) this.add({ kind: 'stream', cell, name: 'stderr', text })
  }

  private refuses(event: OutputEvent): boolean {
    if (!this.limited || event.kind !== 'stream') return false
    const refused = event.text.length > this.limited.room
    this.limited[refused ? 'dropped' : 'room'] += refused ? event.text.length : -event.text.length
    if (refused) this.onSent(event.text.length)
    return refused
  }

  private waitingUpdate(displayId: string | null): number {
    return this.waiting.findIndex((event) => event.kind === 'display' && event.update && event.displayId === displayId)
  }

  private schedule(wait: number): void {
    if (wait === 0) this.drain()
    else this.timer ??= setTimeout(() => this.drain(), wait)
  }

  private drain(): void {
    if (this.timer) clearTimeout(this.timer)
    this.timer = null
    let sent = 0
    for (const event of this.waiting) {
      const size = event.kind === 'stream' ? event.text.length : 0
      const wait = Math.max(this.bytes.wait(), this.messages.wait())
      if (wait > 0) {
        this.timer = setTimeout(() => this.drain(), wait)
        break
      }
      this.bytes.take(size)
      this.messages.take(1)
      this.sink(event)
      this.onSent(size)
      sent++
    }
    this.waiting.splice(0, sent)
    if (this.waiting.length > 0) return
    for (const resolve of this.emptied.splice(0)) resolve()
  }
}

/** Lets `burst` through at once and `refill` a second after that. A take may overdraw; the next one waits. */
class Bucket {
  private level: number
  private at = Date.now()

  constructor(private readonly limit: { readonly burst: number; readonly refill: number }) {
    this.level = limit.burst
  }

  /** Milliseconds until something may be taken. */
  wait(): number {
    const now = Date.now()
    this.level = Math.min(this.limit.burst, this.level + ((now - this.at) / 1000) * this.limit.refill)
    this.at = now
    return this.level > 0 ? 0 : Math.ceil((-this.level / this.limit.refill) * 1000) + 1
  }

  take(amount: number): void {
    this.level -= amount
  }
}
