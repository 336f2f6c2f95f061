// The facts of data/facts: tables of rows, and kinds of questions that read a fact out of a row.

import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { packageRoot } from '../engine/package-root'
import { ModelError } from '../errors'
import { accepts, type Fact, fixedTraits, type Level } from './fact'

interface Table {
  readonly columns: readonly string[]
  /** Each row is also read with its two cells exchanged. */
  readonly mirrored?: boolean
  readonly rows: readonly (readonly (string | null)[])[]
}

/** A kind of question about a table; `{column}` in its texts stands for a cell. */
interface Kind {
  readonly kind: string
  readonly table: string
  /** The column that is asked for. */
  readonly answer: string
  readonly questions: readonly string[]
  readonly reasoning: string
  readonly level?: Level
  readonly opener?: string
}

type Row = Readonly<Record<string, string | null>>

const USUAL_OPENER = 'Let me recall.'
let loaded: readonly Fact[] | null = null

/** Every fact of data/facts, read once. A row lacking a cell that a kind needs has no fact of that kind. @throws ModelError for files that make no sense */
export function symbolicFacts(): readonly Fact[] {
  loaded ??= readFacts(join(packageRoot(), 'data', 'facts'))
  return loaded
}

function readFacts(folder: string): Fact[] {
  const read = (name: string): unknown => JSON.parse(readFileSync(join(folder, name), 'utf8'))
  const { kinds } = read('kinds.json') as { readonly kinds: readonly Kind[] }
  const names = readdirSync(folder).filter((name) => name.endsWith('.json') && name !== 'kinds.json')
  const tables = new Map(names.map((name) => [name.slice(0, -'.json'.length), rowsOf(name, read(name) as Table)]))
  return kinds.flatMap((kind) => {
    const rows = tables.get(kind.table)
    if (!rows)
      throw new ModelError(
        `data/facts/kinds.json: "${kind.kind}" reads the table "${kind.table}", but there is no ${kind.table}.json.`,
      )
    return factsOf(kind, rows)
  })
}

function rowsOf(name: string, { columns, rows, mirrored = false }: Table): Row[] {
  return rows.flatMap((cells) => {
    if (cells.length !== columns.length)
      throw new ModelError(
        `data/facts/${name}: ${JSON.stringify(cells)} has ${cells.length} cells; the columns are ${columns.join(', ')}.`,
      )
    const orders = mirrored ? [cells, [...cells].reverse()] : [cells]
    return orders.map((order) => Object.fromEntries(columns.map((column, i) => [column, order[i]!])))
  })
}

function factsOf(kind: Kind, rows: readonly Row[]): Fact[] {
  const needed = new Set([kind.answer, ...columnsOf(kind.reasoning), ...kind.questions.flatMap(columnsOf)])
  const known = rows.filter((row) => [...needed].every((column) => row[column] !== undefined && row[column] !== null)) as Record<
    string,
    string
  >[]
  if (known.length === 0)
    throw new ModelError(
      `data/facts/kinds.json: no row of ${kind.table}.json has all of ${[...needed].join(', ')}, which "${kind.kind}" needs.`,
    )
  const answers = [...new Set(known.map((row) => row[kind.answer]!))]
  return known.map((row) => makeFact(kind, row, answers))
}

function makeFact(kind: Kind, row: Readonly<Record<string, string>>, answers: readonly string[]): Fact {
  const answer = row[kind.answer]!
  const id = `${kind.kind}: ${columnsOf(kind.questions[0]!)
    .map((column) => row[column])
    .join(', ')}`
  const wrong = answers.filter((other) => !accepts(answer, other))
  return {
    id,
    kind: kind.kind,
    level: kind.level ?? 'usual',
    opener: kind.opener ?? USUAL_OPENER,
    questions: kind.questions.map((question) => fill(question, row)),
    answer,
    wrong,
    ...fixedTraits(id, wrong),
    statement: (given) => fill(kind.reasoning, { ...row, [kind.answer]: given }),
  }
}

function columnsOf(template: string): string[] {
  return [...template.matchAll(/\{(\w+)\}/g)].map((match) => match[1]!)
}

/** The template with its cells; "a" becomes "an" before a vowel, and every sentence begins with a capital letter. */
function fill(template: string, cells: Readonly<Record<string, string>>): string {
  const text = template.replace(/\{(\w+)\}/g, (_, column: string) => cells[column]!)
  return text.replace(/\b([Aa]) (?=[aeiou])/g, '$1n ').replace(/(?:^|\. )\p{Ll}/gu, (start) => start.toUpperCase())
}
