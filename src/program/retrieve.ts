// Retrieve: passages about a query from a corpus on disk, ranked by BM25 (minisearch). Follows dspy/retrievers/retrieve.py.

import { OptionError } from '../errors'
import { currentSettings } from './context'
import { findPath, readRows } from './data'
import { Prediction } from './example'
import { Module } from './module'

export interface Passage {
  readonly id: string
  readonly title?: string
  readonly text: string
}

export interface ScoredPassage extends Passage {
  /** The higher, the better; comparable within one query. */
  readonly score: number
}

/** Whatever finds passages: the local corpus, or a search service. */
export interface Retriever {
  search(query: string, k: number): readonly ScoredPassage[] | Promise<readonly ScoredPassage[]>
}

/** The part of minisearch that is used. */
interface Index {
  addAll(rows: readonly object[]): void
  search(query: string): readonly { readonly id: number; readonly score: number }[]
}

/**
 * Passages in memory, found by their words.
 * @example const corpus = await dspy.LocalCorpus.load('data/passages.jsonl')
 */
export class LocalCorpus implements Retriever {
  readonly #index: Index
  readonly passages: readonly Passage[]

  private constructor(index: Index, passages: readonly Passage[]) {
    this.#index = index
    this.passages = passages
  }

  /** An index over passages. `id` is the row's number where it has none. @throws OptionError for none, or one without text */
  static async from(rows: readonly object[]): Promise<LocalCorpus> {
    if (rows.length === 0) throw new OptionError('A corpus needs at least one passage: { id, title, text }.')
    const { default: MiniSearch } = await import('minisearch') // at its first use: few programs retrieve
    const passages = rows.map(toPassage)
    const index = new MiniSearch({ fields: ['title', 'text'], idField: 'number' })
    index.addAll(passages.map(({ title, text }, number) => ({ number, title: title ?? '', text })))
    return new LocalCorpus(index as unknown as Index, passages)
  }

  /** Reads JSON lines with `text`, and `title` and `id` where they are known. @throws OptionError naming file and line */
  static async load(path: string): Promise<LocalCorpus> {
    const file = findPath(path)
    if (file === null) throw new OptionError(`There is no corpus '${path}'; it should hold one JSON object with \`text\` a line.`)
    return LocalCorpus.from(readRows(file, ['text']))
  }

  /** At most `k` passages that share a word with the query, best first. */
  search(query: string, k: number): ScoredPassage[] {
    return this.#index
      .search(query)
      .slice(0, k)
      .map(({ id, score }) => ({ ...this.passages[id]!, score }))
  }
}

function toPassage(row: object, number: number): Passage {
  const { id = number, title, text } = row as { id?: unknown; title?: unknown; text?: unknown }
  if (typeof text !== 'string') throw new OptionError(`Passage ${number} has no \`text\`: ${JSON.stringify(row).slice(0, 80)}`)
  return { id: String(id), ...(typeof title === 'string' ? { title } : {}), text }
}

/** What a search found, best first, a list per property. */
export interface Retrieved {
  /** `title | text`, as prompts take them. */
  passages: string[]
  ids: string[]
  scores: number[]
}

/**
 * A step of a program that looks something up.
 * @example
 * const search = new dspy.Retrieve({ k: 3, rm: corpus }) // or once for all: dspy.configure({ rm: corpus })
 * const { passages } = await search.call('When was Goethe born?')
 */
export class Retrieve extends Module {
  /** Passages wanted. */
  k: number
  /** null: the configured one. */
  rm: Retriever | null

  constructor({ k = 3, rm = null }: { readonly k?: number; readonly rm?: Retriever | null } = {}) {
    super()
    this.k = checkedCount(k)
    this.rm = rm
  }

  /** @throws OptionError when no retriever is there */
  async forward(query: string, options: { readonly k?: number } = {}): Promise<Prediction<Retrieved>> {
    const rm = this.rm ?? currentSettings().rm
    if (!rm)
      throw new OptionError(
        "No RM is loaded. Configure one: dspy.configure({ rm: await dspy.LocalCorpus.load('passages.jsonl') }).",
      )
    const found = await rm.search(query, checkedCount(options.k ?? this.k))
    return new Prediction<Retrieved>({
      passages: found.map(({ title, text }) => (title === undefined ? text : `${title} | ${text}`)),
      ids: found.map(({ id }) => id),
      scores: found.map(({ score }) => score),
    })
  }
}

function checkedCount(k: number): number {
  if (Number.isInteger(k) && k > 0) return k
  throw new OptionError(`k must be a whole number from 1 on, but it is ${k}.`)
}
