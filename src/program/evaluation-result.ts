// What an evaluation found: the score, every example with its prediction, and the table that a notebook shows.

import { type Example, fieldsOf, Prediction } from './example'
import { escapeHtml } from './html'
import type { Loose } from './infer-types'
import { pyFloat, pyStr } from './python-text'

export interface ExampleResult {
  readonly example: Example
  /** Without fields when the program or the metric failed. */
  readonly prediction: Prediction
  readonly score: number | boolean
  /** Why the example failed; null when it didn't. */
  readonly error: string | null
  /** What was thrown, where something was. */
  readonly cause?: unknown
}

/** Words of a cell that are shown. */
const CELL_WORDS = 25
/** Kinds of failures that are told above the table, and their length. */
const SHOWN_REASONS = 3
const REASON_CHARACTERS = 200

/** A prediction with the fields `score` (percent) and `results`. */
export class EvaluationResult extends Prediction<{ score: number; results: readonly ExampleResult[] }> {
  readonly #metricName: string
  readonly #shownRows: number

  constructor(score: number, results: readonly ExampleResult[], metricName = 'metric', display: boolean | number = true) {
    super({ score, results })
    this.#metricName = metricName
    this.#shownRows = display === true ? Number.POSITIVE_INFINITY : Number(display)
  }

  /** One row an example: its fields, the prediction's, the score under the metric's name. A name that both have becomes `example_…`, `pred_…`. */
  table(): Loose[] {
    return this.results.map(({ example, prediction, score }) => {
      const [given, predicted] = [fieldsOf(example), fieldsOf(prediction)]
      const side = (own: Loose, other: Loose, prefix: string) =>
        Object.entries(own).map(([key, value]) => [key in other ? `${prefix}_${key}` : key, value])
      const row = Object.fromEntries([...side(given, predicted, 'example'), ...side(predicted, given, 'pred')])
      return { ...row, [this.#metricName]: score }
    })
  }

  /** Every column of `table`, in the order of their first row. */
  columns(): string[] {
    return [...new Set(this.table().flatMap((row) => Object.keys(row)))]
  }

  /** Examples whose program or metric failed, with the reasons. */
  failures(): ExampleResult[] {
    return this.results.filter((result) => result.error !== null)
  }

  override copy(changes: object = {}): this {
    const { score, results } = { score: this.score, results: this.results, ...changes }
    return new EvaluationResult(score, results, this.#metricName, this.#shownRows) as this
  }

  override toString(): string {
    const score = Number.isInteger(this.score) ? pyFloat(this.score) : String(this.score)
    return `EvaluationResult(score=${score}, results=<list of ${this.results.length} results>)`
  }

  /** What a notebook shows. */
  [Symbol.for('Jupyter.display')](): Record<string, string> {
    return { 'text/plain': this.toString(), 'text/html': this.#html() }
  }

  /** Why examples failed, the commonest reasons first. */
  #reasons(): string {
    const counts = new Map<string, number>()
    for (const { error } of this.failures()) counts.set(headline(error!), (counts.get(headline(error!)) ?? 0) + 1)
    const lines = [...counts].sort(([, a], [, b]) => b - a).map(([reason, count]) => `${count} failed: ${escapeHtml(reason)}`)
    const more = lines.length > SHOWN_REASONS ? [`and ${lines.length - SHOWN_REASONS} other reasons: see failures()`] : []
    return [...lines.slice(0, SHOWN_REASONS), ...more].map((line) => `<p>${line}</p>`).join('')
  }

  #html(): string {
    const count = this.results.length
    const summary = `<p><b>${escapeHtml(this.score)} %</b> over ${count} ${count === 1 ? 'example' : 'examples'}</p>${this.#reasons()}`
    const rows = this.table().slice(0, this.#shownRows)
    if (rows.length === 0) return summary
    const columns = this.columns()
    const head = columns.map((column) => `<th>${escapeHtml(column)}</th>`).join('')
    const body = rows.map(
      (row) => `<tr>${columns.map((column) => `<td>${escapeHtml(cellText(row[column]))}</td>`).join('')}</tr>`,
    )
    const hidden = this.results.length - rows.length
    const more = hidden > 0 ? `<p>${hidden} more rows</p>` : ''
    return `${summary}<table><thead><tr>${head}</tr></thead><tbody>${body.join('')}</tbody></table>${more}`
  }
}

/** The first line with words: what the others add is the answer that could not be read, or a stack. */
function headline(error: string): string {
  const line = error.trim().split('\n', 1)[0]!
  return line.length > REASON_CHARACTERS ? `${line.slice(0, REASON_CHARACTERS)}…` : line
}

function cellText(value: unknown): string {
  if (value === undefined) return ''
  const text = pyStr(value)
  const words = text.split(/\s+/)
  return words.length > CELL_WORDS ? `${words.slice(0, CELL_WORDS).join(' ')}...` : text
}
