// Several trainings at the same time, in one live chart: a line each, a status row each.

import { AsyncLocalStorage } from 'node:async_hooks'
import type { StepRecord } from '../protocol'
import { curves } from './curves'
import { type DisplayHost, displayHost, escapeHtml, type MimeBundle } from './mime'

/** What a report of progress says, as far as it is drawn here. */
export interface RunReport {
  readonly done: number
  readonly total: number
  readonly note?: string
  /** A finished step. */
  readonly record?: StepRecord
  /** What is going on, when it is no training. */
  readonly activity?: string
}

export interface TogetherOptions {
  readonly title?: string
  /** Steps in a running mean of the drawn reward. Default 5. */
  readonly smooth?: number
  /** null: nothing is shown. Default: the notebook we run in. */
  readonly host?: DisplayHost | null
}

interface Lane {
  readonly name: string
  readonly rewards: number[]
  done: number
  total: number
  activity: string
  ended: 'done' | 'failed' | null
}

const EVERY_MS = 500
const lanes = new AsyncLocalStorage<{ board: Board; lane: Lane }>()
let boards = 0

/**
 * Runs all functions at once, e.g. compilers on one server, which shares the machine better than one after the other; answers what each
 * returned, under its name. Their progress is drawn in one chart. When one fails the others are let finish, then its error is thrown.
 */
export async function together<K extends string, T>(
  runs: Readonly<Record<K, () => Promise<T>>>,
  options: TogetherOptions = {},
): Promise<Record<K, T>> {
  const names = Object.keys(runs) as K[]
  const board = new Board(names, options)
  const settled = await Promise.allSettled(
    names.map((name) => {
      const lane = board.lane(name)
      return lanes.run({ board, lane }, () => board.follow(lane, runs[name]))
    }),
  )
  board.end()
  const failed = settled.find((one): one is PromiseRejectedResult => one.status === 'rejected')
  if (failed) throw failed.reason
  return Object.fromEntries(names.map((name, i) => [name, (settled[i] as PromiseFulfilledResult<T>).value])) as Record<K, T>
}

/** Whether the caller is one of several runs, whose board has now been told. */
export function toldTogether(report: RunReport): boolean {
  const here = lanes.getStore()
  here?.board.report(here.lane, report)
  return here !== undefined
}

/** The two outputs that are replaced, at most twice a second: rows of status, and the chart. */
class Board {
  private readonly all: readonly Lane[]
  private readonly host: DisplayHost | null
  private readonly id = `arbor-together-${process.pid}-${++boards}`
  private readonly displayed = new Set<string>()
  private timer: NodeJS.Timeout | null = null
  private drawnAt = 0
  private ended = false

  constructor(
    names: readonly string[],
    private readonly options: TogetherOptions,
  ) {
    this.host = options.host === undefined ? displayHost() : options.host
    this.all = names.map((name) => ({ name, rewards: [], done: 0, total: 0, activity: 'waiting', ended: null }))
    this.schedule()
  }

  lane(name: string): Lane {
    return this.all.find((lane) => lane.name === name)!
  }

  async follow<T>(lane: Lane, run: () => Promise<T>): Promise<T> {
    try {
      const value = await run()
      lane.ended = 'done'
      return value
    } catch (error) {
      lane.ended = 'failed'
      throw error
    } finally {
      this.schedule()
    }
  }

  report(lane: Lane, { done, total, record, activity }: RunReport): void {
    Object.assign(lane, { done, total, activity: activity ?? '' })
    if (record) lane.rewards.push(record.reward)
    this.schedule()
  }

  end(): void {
    this.ended = true
    if (this.timer) clearTimeout(this.timer)
    this.draw()
  }

  private schedule(): void {
    if (this.timer || this.ended) return
    this.timer = setTimeout(() => this.draw(), Math.max(0, this.drawnAt + EVERY_MS - Date.now()))
    this.timer.unref()
  }

  private draw(): void {
    this.timer = null
    this.drawnAt = Date.now()
    this.put('status', statusBundle(this.all))
    const drawn = this.all.filter(({ rewards }) => rewards.length > 0).map(({ name, rewards }) => ({ name, y: rewards }))
    if (drawn.length === 0) return
    const { title = 'Mean reward', smooth = 5 } = this.options
    const figure = curves(drawn, { title, smooth })
    const html = figure.html(`${this.id}-chart`, { still: this.ended })
    this.put('chart', { 'application/vnd.plotly.v1+json': figure.toJSON(), 'text/html': html, 'text/plain': figure.summary })
  }

  private put(part: string, bundle: MimeBundle): void {
    const displayId = `${this.id}-${part}`
    if (this.displayed.has(part)) this.host?.update(bundle, displayId)
    else this.host?.display(bundle, { displayId })
    this.displayed.add(part)
  }
}

function statusBundle(all: readonly Lane[]): MimeBundle {
  const rows = all.map(
    (lane) =>
      `<tr><td style="text-align:left">${escapeHtml(lane.name)}</td><td style="text-align:left">${escapeHtml(state(lane))}</td></tr>`,
  )
  const html = `<table style="font-variant-numeric:tabular-nums;font-size:.9em"><tbody>${rows.join('')}</tbody></table>`
  return { 'text/html': html, 'text/plain': all.map((lane) => `${lane.name}: ${state(lane)}`).join(' · ') }
}

/** step 34/100, reward 0.42 */
function state({ rewards, done, total, activity, ended }: Lane): string {
  if (ended !== null) return rewards.length === 0 ? ended : `${rewards.length} steps, ${ended}`
  if (activity !== '') return activity
  return `step ${done}/${total}${rewards.length > 0 ? `, reward ${rewards.at(-1)!.toFixed(2).replace('-', '−')}` : ''}`
}
