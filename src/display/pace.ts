// How often something that changes is drawn: at once the first time, then at most four to five times a second, the newest state winning.

const EVERY_MS = 220

export class Pace {
  private timer: NodeJS.Timeout | null = null
  private drawnAt = 0
  private ended = false

  /** @param draw draws the state there is when it is called */
  constructor(
    private readonly draw: () => void,
    private readonly everyMs = EVERY_MS,
  ) {}

  /** Something has changed. Draws now or soon; also in a loop that never lets a timer run. */
  ask(): void {
    if (this.ended) return
    const wait = this.drawnAt + this.everyMs - Date.now()
    if (wait <= 0) this.now()
    else if (!this.timer) this.timer = setTimeout(() => this.now(), wait)
    this.timer?.unref()
  }

  /** Draws the last state; nothing is drawn after it. */
  end(): void {
    this.ended = true
    this.now()
  }

  private now(): void {
    if (this.timer) clearTimeout(this.timer)
    this.timer = null
    this.drawnAt = Date.now()
    this.draw()
  }
}
