// What was executed, kept over restarts: one line of JSON a cell in a file that all kernels append to.

import { appendFileSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'

interface Entry {
  readonly session: number
  readonly line: number
  readonly input: string
  output?: string
}

/** A row as the protocol wants it: session, line, and the input or the pair of input and output. */
export type HistoryRow = [number, number, string | [string, string | null]]

export interface HistoryRequest {
  readonly output?: boolean
  readonly hist_access_type?: string
  readonly session?: number
  readonly start?: number
  readonly stop?: number
  readonly n?: number
  readonly pattern?: string
  readonly unique?: boolean
}

/** Entries that a start keeps. */
const KEPT = 10_000

export class History {
  private readonly entries: Entry[]
  private readonly session: number

  constructor(private readonly file: string) {
    this.entries = readEntries(file)
    this.session = 1 + this.entries.reduce((last, { session }) => Math.max(last, session), 0)
    if (this.entries.length > KEPT) this.shorten()
    this.write({ session: this.session })
  }

  add(line: number, input: string, output: string | null): void {
    const entry: Entry = { session: this.session, line, input, ...(output === null ? {} : { output }) }
    this.entries.push(entry)
    this.write(entry)
  }

  rows(request: HistoryRequest): HistoryRow[] {
    const found = this.find(request)
    return found.map(({ session, line, input, output }) => [session, line, request.output ? [input, output ?? null] : input])
  }

  private find({ hist_access_type, session = 0, start = 0, stop, n, pattern, unique }: HistoryRequest): Entry[] {
    const real = this.entries.filter(({ line }) => line > 0)
    if (hist_access_type === 'range') {
      // 0 is this session, −1 the one before it.
      const wanted = session > 0 ? session : this.session + session
      return real.filter((e) => e.session === wanted && e.line >= start && e.line < (stop ?? Infinity))
    }
    let found = hist_access_type === 'search' ? real.filter(({ input }) => glob(pattern ?? '*').test(input)) : real
    if (unique) found = [...new Map(found.map((entry) => [entry.input, entry])).values()]
    return n === undefined || n === null ? found : found.slice(Math.max(0, found.length - n))
  }

  /** A full disk or a read-only home costs the memory of this session, not the session. */
  private write(line: object): void {
    try {
      mkdirSync(dirname(this.file), { recursive: true })
      appendFileSync(this.file, `${JSON.stringify(line)}\n`)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === undefined) throw error
    }
  }

  private shorten(): void {
    this.entries.splice(0, this.entries.length - KEPT)
    const text = this.entries.map((entry) => `${JSON.stringify(entry)}\n`).join('')
    const temporary = `${this.file}.${process.pid}`
    try {
      writeFileSync(temporary, text)
      renameSync(temporary, this.file)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === undefined) throw error
    }
  }
}

/** Lines that are no JSON (a crash in the middle of one) are passed over. */
function readEntries(file: string): Entry[] {
  if (!existsSync(file)) return []
  return readFileSync(file, 'utf8')
    .split('\n')
    .flatMap((line) => {
      try {
        const entry = JSON.parse(line) as Partial<Entry>
        if (typeof entry.session !== 'number') return []
        return [{ line: 0, input: '', ...entry, session: entry.session }]
      } catch {
        return []
      }
    })
}

/** A shell pattern: * and ?, for the whole text. */
function glob(pattern: string): RegExp {
  const escaped = pattern.replace(/[.+^${}()|[\]\\]/g, '\\$&')
  return new RegExp(`^${escaped.replace(/\*/g, '[\\s\\S]*').replace(/\?/g, '[\\s\\S]')}$`)
}
