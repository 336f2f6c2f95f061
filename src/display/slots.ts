// The outputs of one live display: each is shown once, then replaced.

import type { Figure } from './figure'
import { type DisplayHost, displayHost, type MimeBundle } from './mime'

let opened = 0

export class Slots {
  private readonly id: string
  private readonly shown = new Set<string>()
  private readonly host: DisplayHost | null

  /** @param host null: nothing is shown; undefined: the notebook we run in */
  constructor(name: string, host?: DisplayHost | null) {
    this.host = host === undefined ? displayHost() : host
    this.id = `arbor-${name}-${process.pid}-${++opened}`
  }

  /** Whether anybody sees them: what nobody sees needn't be drawn. */
  get seen(): boolean {
    return this.host !== null
  }

  /** Whether charts are among what is seen. */
  get charts(): boolean {
    return this.seen && this.host?.charts !== 'none'
  }

  put(part: string, bundle: MimeBundle): void {
    const displayId = `${this.id}-${part}`
    if (this.shown.has(part)) this.host?.update(bundle, displayId)
    else this.host?.display(bundle, { displayId })
    this.shown.add(part)
  }

  /** While it is `live`, only what the page needs to draw it; the last one with all that a saved notebook needs. */
  chart(part: string, figure: Figure, live: boolean): void {
    if (!this.charts) return
    const key = `${this.id}-${part}`
    this.put(part, live && this.host?.charts !== 'pictures' ? figure.liveBundle(key) : figure.bundle(key))
  }
}
