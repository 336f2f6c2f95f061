// Progress bars: how far, how fast, how long still. A bar that begins inside another one's work is drawn below it, in the same output.

import { AsyncLocalStorage } from 'node:async_hooks'
import { progressBar, timeLeft } from './live'
import { escapeHtml, type MimeBundle } from './mime'
import { Pace } from './pace'
import { Slots } from './slots'

/** Before that a rate would be a guess. */
const RATE_AFTER_MS = 500
const TEXT_CELLS = 12
const enclosing = new AsyncLocalStorage<Bar>()

export interface BarState {
  readonly title: string
  readonly done: number
  /** 0: not known. */
  readonly total: number
  readonly note?: string
}

/** One activity. It shows from its creation on; `end` must come. */
export class Bar {
  readonly depth: number
  private readonly outer: Bar | null
  private readonly board: Board
  private readonly startedAt = Date.now()
  private endedAt: number | null = null

  constructor(private state: BarState) {
    // A loop that has ended still stands in the context of what comes after it.
    let outer = enclosing.getStore() ?? null
    while (outer?.ended) outer = outer.outer
    this.outer = outer
    this.depth = outer ? outer.depth + 1 : 0
    this.board = outer?.board ?? new Board()
    this.board.add(this)
  }

  get ended(): boolean {
    return this.endedAt !== null
  }

  set(change: Partial<BarState>): void {
    this.state = { ...this.state, ...change }
    this.board.changed()
  }

  end(change: Partial<BarState> = {}): void {
    this.state = { ...this.state, ...change }
    this.endedAt = Date.now()
    this.board.ended(this)
  }

  /** Answers 0 to 1; 0 where the total is not known. */
  share(): number {
    return this.state.total > 0 ? Math.min(1, this.state.done / this.state.total) : 0
  }

  /** Evaluate: 34/100 · 41.2 % · 12/s · 5 s left */
  text(): string {
    return barText(this.state, (this.endedAt ?? Date.now()) - this.startedAt, this.ended)
  }

  /** As `text`, with a bar of characters. */
  plain(): string {
    const [head, ...rest] = this.text().split(' · ')
    const full = Math.round(this.share() * TEXT_CELLS)
    const bar = this.state.total > 0 ? [`${'█'.repeat(full)}${'░'.repeat(TEXT_CELLS - full)}`] : []
    return [[head, ...bar].join(' '), ...rest].join(' · ')
  }
}

/** What a bar says of itself after `elapsed` milliseconds. */
export function barText({ title, done, total, note }: BarState, elapsed = 0, ended = false): string {
  const parts = [`${title}: ${done}${total > 0 ? `/${total}` : ''}`]
  if (note) parts.push(note)
  if (elapsed < RATE_AFTER_MS || done === 0) return parts.join(' · ')
  const each = elapsed / 1000 / done
  parts.push(each <= 1 ? `${rounded(1 / each)}/s` : `${rounded(each)} s each`)
  if (ended) parts.push(`${timeLeft(elapsed / 1000)} in all`)
  else if (total > done) parts.push(`${timeLeft(each * (total - done))} left`)
  return parts.join(' · ')
}

function rounded(value: number): string {
  return value < 10 ? value.toFixed(1) : String(Math.round(value))
}

/** One output with a row a bar. */
class Board {
  private rows: Bar[] = []
  private readonly slots = new Slots('progress')
  private readonly pace = new Pace(() => this.slots.put('bars', this.bundle()))

  add(bar: Bar): void {
    // Work that is done again and again has one row.
    this.rows = [...this.rows.filter((row) => !row.ended || row.depth < bar.depth), bar]
    this.pace.ask()
  }

  changed(): void {
    this.pace.ask()
  }

  ended(bar: Bar): void {
    if (bar.depth > 0) {
      this.pace.ask()
      return
    }
    this.rows = [bar]
    this.pace.end()
  }

  private bundle(): MimeBundle {
    const rows = this.rows.map(
      (bar) =>
        `<div style="margin-left:${1.5 * bar.depth}em;font-variant-numeric:tabular-nums;font-size:.9em">${escapeHtml(bar.text())}${progressBar(bar.share())}</div>`,
    )
    return { 'text/html': rows.join(''), 'text/plain': this.rows.map((bar) => bar.plain()).join(' › ') }
  }
}

export interface ProgressOptions {
  readonly title?: string
  /** How many there will be, where `items` can't tell. */
  readonly total?: number
}

/**
 * The items, one after the other, with a bar that shows how far the loop is; loops inside the loop show theirs below it.
 * @example for (const row of plot.progress(rows, { title: 'Scoring' })) score(row)
 */
export function progress<T>(items: Iterable<T>, options?: ProgressOptions): IterableIterator<T>
export function progress<T>(items: AsyncIterable<T>, options?: ProgressOptions): AsyncIterableIterator<T>
export function progress<T>(
  items: Iterable<T> | AsyncIterable<T>,
  options: ProgressOptions = {},
): IterableIterator<T> | AsyncIterableIterator<T> {
  const loop = new Loop(options, options.total ?? sizeOf(items))
  return Symbol.asyncIterator in items ? asyncLoop(items, loop) : syncLoop(items, loop)
}

// Not generators: `next` must run in the caller's own context, for the bars of the loop's body to find this one around them.

function asyncLoop<T>(items: AsyncIterable<T>, loop: Loop): AsyncIterableIterator<T> {
  const source = items[Symbol.asyncIterator]()
  const iterator: AsyncIterableIterator<T> = {
    next: () => {
      loop.begin()
      return source.next().then((result) => loop.step(result))
    },
    return: async (value) => {
      loop.end()
      return (await source.return?.(value)) ?? { done: true, value }
    },
    [Symbol.asyncIterator]: () => iterator,
  }
  return iterator
}

function syncLoop<T>(items: Iterable<T>, loop: Loop): IterableIterator<T> {
  const source = items[Symbol.iterator]()
  const iterator: IterableIterator<T> = {
    next: () => {
      loop.begin()
      return loop.step(source.next())
    },
    return: (value) => {
      loop.end()
      return source.return?.(value) ?? { done: true, value }
    },
    [Symbol.iterator]: () => iterator,
  }
  return iterator
}

/** The bar of one loop: it encloses what the loop's body starts. */
class Loop {
  private bar: Bar | null = null
  private given = 0

  constructor(
    private readonly options: ProgressOptions,
    private readonly total: number,
  ) {}

  begin(): void {
    if (this.bar) {
      this.bar.set({ done: this.given })
      return
    }
    this.bar = new Bar({ title: this.options.title ?? 'Progress', done: 0, total: this.total })
    enclosing.enterWith(this.bar)
  }

  step<R extends IteratorResult<unknown>>(result: R): R {
    if (result.done) this.end()
    else this.given++
    return result
  }

  end(): void {
    if (this.bar && !this.bar.ended) this.bar.end()
  }
}

function sizeOf(items: object): number {
  const { length, size } = items as { length?: unknown; size?: unknown }
  return typeof length === 'number' ? length : typeof size === 'number' ? size : 0
}
