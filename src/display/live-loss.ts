// A fine-tuning job while it trains: a status line, and the loss of its updates so far. Each is one output that is replaced.

import { progressBar, timeLeft } from './live'
import { lossCurve } from './loss-curve'
import { type DisplayHost, escapeHtml, type MimeBundle } from './mime'
import { Pace } from './pace'
import { Slots } from './slots'

/** One update, as the server tells it. */
export interface TrainedStep {
  readonly step: number
  readonly steps: number
  readonly loss: number
  readonly seconds: number
}

export interface LiveLossOptions {
  readonly title: string
  /** null: nothing is shown. Default: the notebook we run in. */
  readonly host?: DisplayHost | null
}

export class LiveLoss {
  private readonly steps: TrainedStep[] = []
  private readonly slots: Slots
  private readonly pace = new Pace(() => this.draw())
  private activity = ''
  private ended: string | null | undefined

  constructor(private readonly options: LiveLossOptions) {
    this.slots = new Slots('loss', options.host)
    this.pace.ask()
  }

  update(step: TrainedStep): void {
    this.steps.push(step)
    this.activity = ''
    this.pace.ask()
  }

  /** What is going on between updates, in a few words. */
  progress(text: string): void {
    this.activity = text
    this.pace.ask()
  }

  /** Draws the last state; `reason` when the training failed or was cancelled. */
  end(reason: string | null = null): void {
    this.ended = reason
    this.activity = ''
    this.pace.end()
  }

  private draw(): void {
    this.slots.put('status', this.status())
    if (this.steps.length === 0) return
    this.slots.chart('curve', lossCurve(this.steps, `${this.options.title}: loss`), this.ended === undefined)
  }

  private status(): MimeBundle {
    const line = lossLine(this.steps, { title: this.options.title, activity: this.activity, ended: this.ended })
    const last = this.steps.at(-1)
    const html = `<div style="font-variant-numeric:tabular-nums"><b>${escapeHtml(line)}</b>${progressBar(last ? last.step / last.steps : 0)}</div>`
    return { 'text/html': html, 'text/plain': line }
  }
}

interface Situation {
  readonly title: string
  readonly activity: string
  /** undefined while it runs, null after success, else why it ended. */
  readonly ended: string | null | undefined
}

/** Fine-tuning predict: update 3/12 · loss 2.1034 → 1.2010 · 40 s left */
export function lossLine(steps: readonly TrainedStep[], { title, activity, ended }: Situation): string {
  const [first, last] = [steps[0], steps.at(-1)]
  const parts = [last ? `${title}: update ${last.step}/${last.steps}` : title]
  if (first && last)
    parts.push(steps.length > 1 ? `loss ${first.loss.toFixed(4)} → ${last.loss.toFixed(4)}` : `loss ${last.loss.toFixed(4)}`)
  if (ended === null) parts.push('done')
  else if (ended !== undefined) parts.push(`stopped: ${ended}`)
  else if (last && last.steps > last.step) {
    const mean = steps.reduce((sum, { seconds }) => sum + seconds, 0) / steps.length
    parts.push(`${timeLeft(mean * (last.steps - last.step))} left`)
  }
  if (activity !== '') parts.push(activity)
  return parts.join(' · ')
}
