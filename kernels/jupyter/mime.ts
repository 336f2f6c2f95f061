// How a value shows itself: its own `Symbol.for('Jupyter.display')` method (Deno's convention), a table for a data frame, else text.

import { inspect } from 'node:util'

/** MIME type → content; text, or JSON for types that end in +json. */
export type MimeBundle = Record<string, unknown>

const DISPLAY = Symbol.for('Jupyter.display')
const MAX_ROWS = 30

/** The bundle of `value`; always has text/plain. Rejects only if the value's own method does. */
export async function bundleOf(value: unknown): Promise<MimeBundle> {
  const method = value === null || value === undefined ? undefined : (value as Record<symbol, unknown>)[DISPLAY]
  if (typeof method === 'function') {
    const bundle = ((await method.call(value)) ?? {}) as MimeBundle
    return 'text/plain' in bundle ? bundle : { ...bundle, 'text/plain': plainText(value) }
  }
  return isDataFrame(value) ? dataFrameBundle(value) : { 'text/plain': plainText(value) }
}

function plainText(value: unknown): string {
  return inspect(value, { depth: 3, maxArrayLength: 50, maxStringLength: 2000, breakLength: 100 })
}

/** As much of danfojs' DataFrame as a table needs. */
interface DataFrameLike {
  readonly columns: string[]
  readonly index: (string | number)[]
  readonly values: unknown[][]
}

function isDataFrame(value: unknown): value is DataFrameLike {
  if (typeof value !== 'object' || value === null || value.constructor?.name !== 'DataFrame') return false
  const { columns, index, values } = value as Partial<DataFrameLike>
  return Array.isArray(columns) && Array.isArray(index) && Array.isArray(values)
}

function dataFrameBundle({ columns, index, values }: DataFrameLike): MimeBundle {
  const rows = values.slice(0, MAX_ROWS)
  const cell = (value: unknown) => (typeof value === 'number' ? String(Number(value.toPrecision(6))) : String(value ?? ''))
  const size = `${values.length} rows × ${columns.length} columns`
  const head = `<tr><th></th>${columns.map((name) => `<th>${escapeHtml(name)}</th>`).join('')}</tr>`
  const body = rows.map((row, i) => {
    const cells = row.map((v) => `<td${typeof v === 'number' ? ' style="text-align:right"' : ''}>${escapeHtml(cell(v))}</td>`)
    return `<tr><th>${escapeHtml(String(index[i] ?? i))}</th>${cells.join('')}</tr>`
  })
  const table = `<table class="dataframe"><thead>${head}</thead><tbody>${body.join('')}</tbody></table>`
  const lines = [columns, ...rows.map((row) => row.map(cell))]
  const widths = columns.map((_, j) => Math.max(...lines.map((line) => (line[j] ?? '').length)))
  const text = lines.map((line) => line.map((part, j) => part.padEnd(widths[j] ?? 0)).join('  ')).join('\n')
  return { 'text/html': `${table}<p>${size}</p>`, 'text/plain': `${text}\n${size}` }
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`)
}
