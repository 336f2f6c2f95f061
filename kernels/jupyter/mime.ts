// How a value shows itself: its own `Symbol.for('Jupyter.display')` method (Deno's convention), a picture for the bytes of one,
// a table for a data frame, numbers for a tensor, else text.

import { inspect } from 'node:util'

/** MIME type → content; text, or JSON for types that end in +json. */
export type MimeBundle = Record<string, unknown>

const DISPLAY = Symbol.for('Jupyter.display')
const MAX_ROWS = 30
/** Characters of text, and of anything else, that one output may hold: a browser must live with it. */
const MAX_TEXT = 500_000
const MAX_CONTENT = 20_000_000

/** The bundle of `value`; always has text/plain. Rejects only if the value's own method does. */
export async function bundleOf(value: unknown): Promise<MimeBundle> {
  return bundleNow(value)
}

/** As bundleOf, but at once where the value's own method does not make us wait. */
export function bundleNow(value: unknown): MimeBundle | Promise<MimeBundle> {
  const method = value === null || value === undefined ? undefined : (value as Record<symbol, unknown>)[DISPLAY]
  if (typeof method !== 'function') return cut(knownBundle(value) ?? { 'text/plain': plainText(value) })
  const complete = (given: unknown): MimeBundle => {
    const bundle = (given ?? {}) as MimeBundle
    return cut('text/plain' in bundle ? bundle : { ...bundle, 'text/plain': plainText(value) })
  }
  const made: unknown = method.call(value)
  return made instanceof Promise ? made.then(complete) : complete(made)
}

/** As much of a text as one output may hold, with a note of what is missing. */
export function cutText(text: string, most = MAX_TEXT): string {
  if (text.length <= most) return text
  return `${text.slice(0, most)}\n… ${((text.length - most) / 1e6).toFixed(1)} million more characters are not shown\n`
}

function knownBundle(value: unknown): MimeBundle | null {
  if (typeof value !== 'object' || value === null) return null
  if (isDataFrame(value)) return dataFrameBundle(value)
  if (isSeries(value))
    return dataFrameBundle({ columns: [value.columns[0] ?? '0'], index: value.index, values: value.values.map((v) => [v]) })
  if (isTensor(value)) return { 'text/plain': tensorText(value) }
  return value instanceof Uint8Array ? pictureBundle(value) : null
}

function plainText(value: unknown): string {
  return inspect(value, { depth: 3, maxArrayLength: 50, maxStringLength: 2000, breakLength: 100 })
}

function cut(bundle: MimeBundle): MimeBundle {
  const entries = Object.entries(bundle).flatMap(([type, content]) => {
    if (typeof content !== 'string') return [[type, content]]
    if (type === 'text/plain' || type === 'text/markdown') return [[type, cutText(content)]]
    return content.length <= MAX_CONTENT ? [[type, content]] : []
  })
  const missing = Object.keys(bundle).length - entries.length
  const kept = Object.fromEntries(entries) as MimeBundle
  const note = `… ${missing} form(s) of this value are larger than ${MAX_CONTENT / 1e6} MB and not shown`
  return missing === 0 ? kept : { ...kept, 'text/plain': `${kept['text/plain'] ?? ''}\n${note}` }
}

const PICTURES: readonly (readonly [type: string, start: readonly number[], at: number])[] = [
  ['image/png', [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a], 0],
  ['image/jpeg', [0xff, 0xd8, 0xff], 0],
  ['image/gif', [0x47, 0x49, 0x46, 0x38], 0],
  ['image/webp', [0x57, 0x45, 0x42, 0x50], 8],
]

/** The picture whose file `bytes` are, or null. */
function pictureBundle(bytes: Uint8Array): MimeBundle | null {
  const type = PICTURES.find(([, start, at]) => start.every((byte, i) => bytes[at + i] === byte))?.[0]
  if (!type) return null
  const size = `${type.slice('image/'.length).toUpperCase()} picture, ${bytes.length} bytes`
  return { [type]: Buffer.from(bytes).toString('base64'), 'text/plain': size }
}

/** As much of a TensorFlow.js tensor as its text needs. */
interface TensorLike {
  readonly dtype: string
  readonly shape: readonly number[]
  readonly isDisposed: boolean
  toString(verbose?: boolean): string
}

function isTensor(value: object): value is TensorLike {
  const { dtype, shape, isDisposed, dataSync } = value as Partial<TensorLike> & { dataSync?: unknown }
  return typeof dtype === 'string' && Array.isArray(shape) && typeof isDisposed === 'boolean' && typeof dataSync === 'function'
}

function tensorText(tensor: TensorLike): string {
  const kind = `Tensor ${tensor.dtype} [${tensor.shape.join(', ')}]`
  if (tensor.isDisposed) return `${kind} (disposed)`
  return `${kind}\n${tensor.toString().replace(/^Tensor\s*\n?/, '')}`
}

/** As much of danfojs' DataFrame as a table needs. */
interface DataFrameLike {
  readonly columns: readonly string[]
  readonly index: readonly (string | number)[]
  readonly values: readonly (readonly unknown[])[]
}
type SeriesLike = Omit<DataFrameLike, 'values'> & { readonly values: readonly unknown[] }

function isDataFrame(value: object): value is DataFrameLike {
  return value.constructor?.name === 'DataFrame' && hasTable(value)
}

function isSeries(value: object): value is SeriesLike {
  return value.constructor?.name === 'Series' && hasTable(value)
}

function hasTable(value: object): boolean {
  const { columns, index, values } = value as Partial<DataFrameLike>
  return Array.isArray(columns) && Array.isArray(index) && Array.isArray(values)
}

function dataFrameBundle({ columns, index, values }: DataFrameLike): MimeBundle {
  const rows = values.slice(0, MAX_ROWS)
  const cell = (value: unknown) => (typeof value === 'number' ? String(Number(value.toPrecision(6))) : String(value ?? ''))
  const size = `${values.length} rows × ${columns.length} columns`
  const head = `<tr><th></th>${columns.map((name) => `<th>${escapeHtml(String(name))}</th>`).join('')}</tr>`
  const body = rows.map((row, i) => {
    const cells = row.map((v) => `<td${typeof v === 'number' ? ' style="text-align:right"' : ''}>${escapeHtml(cell(v))}</td>`)
    return `<tr><th>${escapeHtml(String(index[i] ?? i))}</th>${cells.join('')}</tr>`
  })
  const table = `<table class="dataframe"><thead>${head}</thead><tbody>${body.join('')}</tbody></table>`
  const lines = [columns.map(String), ...rows.map((row) => row.map(cell))]
  const widths = columns.map((_, j) => Math.max(...lines.map((line) => (line[j] ?? '').length)))
  const text = lines.map((line) => line.map((part, j) => part.padEnd(widths[j] ?? 0)).join('  ')).join('\n')
  return { 'text/html': `${table}<p>${size}</p>`, 'text/plain': `${text}\n${size}` }
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`)
}
