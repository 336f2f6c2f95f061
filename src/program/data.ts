// Loads examples and demos from JSON lines.

import { existsSync, readFileSync } from 'node:fs'
import { dirname, isAbsolute, join, resolve } from 'node:path'
import { OptionError } from '../errors'
import { Example } from './example'

export interface Dataset {
  readonly trainset: Example[]
  readonly devset: Example[]
  readonly testset: Example[]
}

export interface ExampleOptions {
  /** Names of the input fields. */
  readonly inputs: readonly string[]
  /** Keeps the rows for which it is true. Default: all. */
  readonly where?: (row: Readonly<Record<string, unknown>>) => boolean
}

/**
 * Reads train.jsonl, dev.jsonl and test.jsonl of a folder.
 * A relative path is looked for in the working folder, then in this package.
 * @example await loadExamples('data/simple-qa', { inputs: ['question'], where: ({ category }) => category === 'capital' })
 * @throws OptionError for a missing file, a line that is no JSON object, a row without an input field, or a split of which `where` leaves nothing
 */
export async function loadExamples(dir: string, options: ExampleOptions): Promise<Dataset> {
  const { inputs, where = () => true } = options ?? {}
  if (!Array.isArray(inputs) || inputs.length === 0) {
    throw new OptionError(`Say which fields are inputs: loadExamples('${dir}', { inputs: ['question'] }).`)
  }
  const folder = findFolder(dir)
  const load = (file: string) => {
    const rows = readRows(join(folder, file), inputs)
    const kept = rows.filter(where)
    if (kept.length === 0)
      throw new OptionError(`'where' keeps none of the ${rows.length} rows of ${join(dir, file)}; loosen it.`)
    return kept.map((row) => new Example(row).withInputs(...inputs))
  }
  return { trainset: load('train.jsonl'), devset: load('dev.jsonl'), testset: load('test.jsonl') }
}

/** Reads demos.jsonl of a folder: worked examples for a prompt, in none of the data sets. @throws OptionError */
export async function loadDemos(dir: string): Promise<Example[]> {
  return readRows(join(findFolder(dir), 'demos.jsonl'), []).map((row) => new Example(row))
}

function findFolder(dir: string): string {
  const found = findPath(dir)
  if (found !== null) return found
  throw new OptionError(`There is no folder '${dir}': looked at ${[...new Set(placesOf(dir))].join(' and ')}.`)
}

/** A file or folder, in the working folder or else in this package; null where neither has it. */
export function findPath(path: string): string | null {
  return placesOf(path).find((place) => existsSync(place)) ?? null
}

function placesOf(path: string): string[] {
  return isAbsolute(path) ? [path] : [resolve(path), join(packageRoot(), path)]
}

/** The folder of our package.json, from the sources as well as from the build. */
function packageRoot(): string {
  let folder = __dirname
  while (!existsSync(join(folder, 'package.json')) && dirname(folder) !== folder) folder = dirname(folder)
  return folder
}

/** The rows of a file of JSON lines. @throws OptionError naming the line that is no object, or lacks a required field */
export function readRows(path: string, required: readonly string[]): Record<string, unknown>[] {
  if (!existsSync(path)) throw new OptionError(`There is no file ${path}; it should hold one JSON object a line.`)
  const lines = readFileSync(path, 'utf8').split(/\r?\n/)
  const rows = lines.flatMap((line, i) => (line.trim() === '' ? [] : [readRow(line, `${path}, line ${i + 1}`, required)]))
  if (rows.length > 0) return rows
  throw new OptionError(`${path} is empty; it should hold one JSON object a line.`)
}

function readRow(line: string, where: string, required: readonly string[]): Record<string, unknown> {
  const row = parseLine(line, where)
  if (typeof row !== 'object' || row === null || Array.isArray(row)) {
    throw new OptionError(`${where}: expected a JSON object like {"question": "…", "answer": "…"}, but got ${line.slice(0, 80)}`)
  }
  const missing = required.find((name) => !(name in row))
  if (missing === undefined) return row as Record<string, unknown>
  throw new OptionError(
    `${where}: the input field '${missing}' is missing; the row has ${Object.keys(row).join(', ') || 'no fields'}.`,
  )
}

function parseLine(line: string, where: string): unknown {
  try {
    return JSON.parse(line)
  } catch (error) {
    throw new OptionError(`${where}: not JSON (${(error as Error).message}): ${line.slice(0, 80)}`, { cause: error })
  }
}
