// From a place in compiled JavaScript back to the line that a person wrote, and error stacks told in those lines only.

import { SourceMap, type SourceMapPayload } from 'node:module'
import { join } from 'node:path'
import { inspect } from 'node:util'
import type { CompiledCode, Diagnostic } from './compiler'

export type RawSourceMap = SourceMapPayload

/** A place in a cell or local module; counts from 1. */
export interface Place {
  readonly file: string
  readonly line: number
  readonly column: number
}

/** An error as Jupyter tells it, and where in the notebook it happened. */
export interface CellError {
  readonly ename: string
  readonly evalue: string
  /** Lines for a person: the message, the code with a caret, the stack. */
  readonly traceback: string[]
  readonly line?: number
  readonly column?: number
  readonly diagnostics?: readonly Diagnostic[]
}

interface Source {
  readonly shownAs: string
  readonly lines: readonly string[]
  readonly compiledLines: number
  readonly maps: readonly SourceMap[]
  /** Lines that the converter puts before the code. */
  readonly offset: number
  readonly writtenColumn: (line: number, column: number) => number
}

const EXECUTOR = join('kernels', 'jupyter', 'executor.')
const FRAME = /^(\s+at (?:async )?(?:.*\()?)(.*):(\d+):(\d+)(\)?)$/

/** All code that ran in one notebook, by the file name that V8 knows. */
export class Sources {
  private readonly byName = new Map<string, Source>()

  /** `text` is the TypeScript behind `compiled`; `offset` the lines that the compiler saw before it. */
  add(
    name: string,
    compiled: CompiledCode & { readonly writtenColumn?: Source['writtenColumn'] },
    { text, shownAs = name, offset = 0 }: { text: string; shownAs?: string; offset?: number },
  ) {
    const maps = compiled.maps.map((map) => new SourceMap(map))
    this.byName.set(name, {
      shownAs,
      lines: text.split('\n'),
      compiledLines: compiled.code.split('\n').length,
      maps: maps.reverse(),
      offset,
      writtenColumn: compiled.writtenColumn ?? ((_line, column) => column),
    })
  }

  /** The written place of a compiled one, or null when no written line made it. */
  original(name: string, line: number, column: number): Place | null {
    const source = this.byName.get(name)
    if (!source || line > source.compiledLines) return null // past the end: the wrapper's own call
    let [row, col] = [line - 1, column - 1]
    for (const map of source.maps) {
      const entry = map.findEntry(row, col)
      if (!('originalLine' in entry)) return null
      row = entry.originalLine
      col = entry.originalColumn
    }
    row -= source.offset
    if (row < 0 || row >= source.lines.length) return null
    return { file: source.shownAs, line: row + 1, column: source.writtenColumn(row + 1, col + 1) }
  }

  /** What `thrown` looks like when told about cell `cell`. */
  describe(thrown: unknown, cell: string): CellError {
    if (!(thrown instanceof Error)) {
      const evalue = typeof thrown === 'string' ? thrown : inspect(thrown, { depth: 2 })
      return { ename: 'Error', evalue, traceback: [`Thrown: ${evalue}`] }
    }
    const { frames, places } = this.stack(thrown)
    const place = places.find(({ file }) => file === cell) ?? places[0]
    const heading = `${thrown.name}: ${thrown.message}`
    const traceback = [heading, ...(place ? this.excerpt(place) : []), ...frames, ...this.causes(thrown)]
    const position = place?.file === cell ? { line: place.line, column: place.column } : {}
    return { ename: thrown.name, evalue: thrown.message, traceback, ...position }
  }

  /** The error of a cell that did not compile. */
  describeDiagnostics(diagnostics: readonly Diagnostic[], cell: string, code: string): CellError {
    const [first] = diagnostics
    if (!first) throw new Error('describeDiagnostics needs at least one diagnostic')
    const ename = first.code < 2000 ? 'SyntaxError' : 'TypeScriptError'
    const tell = ({ file, line, column, message, code: number }: Diagnostic) =>
      `${file ?? cell}:${line}:${column} ${message} (TS${number})`
    const samePlace = (a: Diagnostic, b: Diagnostic | undefined) =>
      a.file === b?.file && a.line === b.line && a.column === b.column
    // One fault may take several sentences; the code is shown once, after the last of them.
    const traceback = diagnostics.flatMap((d, i) => [
      i === 0 ? `${ename}: ${tell(d)}` : tell(d),
      ...(d.file || samePlace(d, diagnostics[i + 1]) ? [] : excerptOf(code.split('\n'), d)),
    ])
    const position = first.file ? {} : { line: first.line, column: first.column }
    return { ename, evalue: tell(first), traceback, ...position, diagnostics }
  }

  /** Frames up to the last one in the notebook, at the lines a person wrote; without Node's own. */
  private stack(error: Error): { frames: string[]; places: Place[] } {
    const text = error.stack ?? ''
    const told = text.split('\n').filter((line) => FRAME.test(line) || /^\s+at /.test(line))
    const frames: { text: string; place: Place | null }[] = []
    for (const frame of told) {
      const [, head = '', file = '', line = '', column = '', tail = ''] = FRAME.exec(frame) ?? []
      const name = file.replace(/^file:\/\//, '')
      if (!this.byName.has(name)) {
        if (frame.includes(EXECUTOR)) break // from here on it is whoever runs the notebook
        if (!/\bnode:/.test(frame) && !frame.includes(`(${__dirname}`)) frames.push({ text: frame, place: null })
        continue
      }
      const place = this.original(name, Number(line), Number(column))
      if (place) frames.push({ text: `${head}${place.file}:${place.line}:${place.column}${tail}`, place })
    }
    const last = frames.map(({ place }) => place !== null).lastIndexOf(true)
    const kept = last < 0 ? frames : frames.slice(0, last + 1)
    return { frames: kept.map((frame) => frame.text), places: kept.flatMap(({ place }) => place ?? []) }
  }

  private causes(error: Error, depth = 0): string[] {
    const inner = error instanceof AggregateError ? error.errors.slice(0, 3) : error.cause === undefined ? [] : [error.cause]
    if (depth === 5) return []
    return inner.flatMap((cause) => {
      if (!(cause instanceof Error)) return [`Caused by: ${inspect(cause, { depth: 1 })}`]
      return [`Caused by: ${cause.name}: ${cause.message}`, ...this.stack(cause).frames, ...this.causes(cause, depth + 1)]
    })
  }

  private excerpt(place: Place): string[] {
    const source = [...this.byName.values()].reverse().find(({ shownAs }) => shownAs === place.file)
    return source ? excerptOf(source.lines, place) : []
  }
}

/** The line with its two neighbours above, underlined from the column on for `length`, as far as the line goes. */
function excerptOf(
  lines: readonly string[],
  { line, column, length = 1 }: { line: number; column: number; length?: number },
): string[] {
  const width = String(line).length
  const rows: string[] = []
  for (let number = Math.max(1, line - 2); number <= line; number++)
    rows.push(`${number === line ? '>' : ' '} ${String(number).padStart(width)} | ${lines[number - 1] ?? ''}`)
  const margin = (lines[line - 1] ?? '').slice(0, column - 1).replace(/[^\t]/g, ' ')
  const marked = Math.max(1, Math.min(length, (lines[line - 1] ?? '').length - column + 1))
  return [...rows, `  ${' '.repeat(width)} | ${margin}^${'~'.repeat(marked - 1)}`]
}
