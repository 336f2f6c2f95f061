// Several trainings at the same time, in one live chart: a line each, a status row each.

import { AsyncLocalStorage } from 'node:async_hooks'
import type { StepRecord } from '../protocol'
import { curves } from './curves'
import { type DisplayHost, escapeHtml, type MimeBundle } from './mime'
import { Pace } from './pace'
import { Slots } from './slots'

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
  private readonly slots: Slots
  private readonly pace = new Pace(() => this.draw(), EVERY_MS)
  private live = true

  constructor(
    names: readonly string[],
    private readonly options: TogetherOptions,
  ) {
    this.slots = new Slots('together', options.host)
    this.all = names.map((name) => ({ name, rewards: [], done: 0, total: 0, activity: 'waiting', ended: null }))
    this.pace.ask()
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
      this.pace.ask()
    }
  }

  report(lane: Lane, { done, total, record, activity }: RunReport): void {
    Object.assign(lane, { done, total, activity: activity ?? '' })
    if (record) lane.rewards.push(record.reward)
    this.pace.ask()
  }

  end(): void {
    this.live = false
    this.pace.end()
  }

  private draw(): void {
    this.slots.put('status', statusBundle(this.all))
    const drawn = this.all.filter(({ rewards }) => rewards.length > 0).map(({ name, rewards }) => ({ name, y: rewards }))
    if (drawn.length === 0) return
    const { title = 'Mean reward', smooth = 5 } = this.options
    this.slots.chart('chart', curves(drawn, { title, smooth }), this.live)
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
