// Rollouts and rows as tables. Everything a model wrote is escaped.

import type { GroupRecord, StepRecord } from '../protocol'
import { type Displayable, escapeHtml, shorten, shown } from './mime'
import { BLUE, RED } from './style'

export interface RolloutTableOptions {
  /** Groups shown; the ones with most spread come first. */
  readonly groups?: number
  /** Characters of a completion before it is cut; the rest shows on hover. */
  readonly length?: number
}

/** The rollouts of a step, group by group, best first: completion, reward, and the advantage as a bar to the left or right. */
export function rolloutTable(record: StepRecord, { groups: count = 6, length = 260 }: RolloutTableOptions = {}): Displayable {
  const spread = (group: GroupRecord) => Math.max(...group.rewards) - Math.min(...group.rewards)
  const groups = [...record.groups].sort((a, b) => spread(b) - spread(a)).slice(0, count)
  const limit = Math.max(1e-9, ...groups.flatMap(({ advantages }) => advantages.map(Math.abs)))
  const left = record.groups.length - groups.length
  const note = left > 0 ? `<p>step ${record.step}; ${left} more groups, with less spread</p>` : `<p>step ${record.step}</p>`
  const head =
    '<tr><th style="min-width:16em;text-align:left">completion</th><th style="text-align:right">reward</th><th style="text-align:center">advantage</th><th style="text-align:right">tokens</th></tr>'
  const body = groups.map((group) => groupRows(group, limit, length)).join('')
  const html = `<table style="width:100%;table-layout:auto"><thead>${head}</thead><tbody>${body}</tbody></table>${note}`
  const lines = groups.flatMap((group) => [
    group.title,
    ...order(group).map((i) => `  ${signed(group.advantages[i]!)}  ${shorten(group.completions[i]!, 90)}`),
  ])
  return shown({ 'text/html': html, 'text/plain': lines.join('\n') })
}

function groupRows(group: GroupRecord, limit: number, length: number): string {
  const title = `<tr><th colspan="4" style="text-align:left;padding-top:1.2em;font-weight:600;color:inherit">${escapeHtml(shorten(group.title, 160))}</th></tr>`
  const rows = order(group).map((i) => {
    const completion = group.completions[i] ?? ''
    const cut = completion.length > length ? `${completion.slice(0, length - 1)}…` : completion
    const text = `<span style="white-space:pre-wrap;overflow-wrap:anywhere" title="${escapeHtml(completion)}">${escapeHtml(cut.trim())}</span>`
    const number = 'style="text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap"'
    const end = group.truncated[i] ? '<span title="cut at the length limit"> ✂</span>' : ''
    return `<tr><td style="text-align:left">${text}</td><td ${number}>${formatNumber(group.rewards[i]!)}</td><td>${bar(group.advantages[i]!, limit)}</td><td ${number}>${group.lengths[i]}${end}</td></tr>`
  })
  return title + rows.join('')
}

function order({ advantages }: GroupRecord): number[] {
  return advantages.map((_, i) => i).sort((a, b) => advantages[b]! - advantages[a]!)
}

/** A bar from the middle: to the right and blue for better than the group, to the left and red for worse. */
function bar(advantage: number, limit: number): string {
  const width = (50 * Math.abs(advantage)) / limit
  const place = advantage >= 0 ? `left:50%;background:${BLUE}` : `right:50%;background:${RED}`
  const fill = `<span style="position:absolute;top:0;bottom:0;width:${width.toFixed(1)}%;${place}"></span>`
  const axis = '<span style="position:absolute;top:-2px;bottom:-2px;left:50%;width:1px;background:#8a94a0"></span>'
  const track = `<span style="position:relative;display:inline-block;width:7em;height:.7em">${fill}${axis}</span>`
  return `<span style="white-space:nowrap;font-variant-numeric:tabular-nums">${track} ${signed(advantage)}</span>`
}

export type Row = Readonly<Record<string, unknown>>

/** Any rows as a table: the columns of the first row, numbers to the right. */
export function table(rows: readonly Row[], { title, limit = 20 }: { title?: string; limit?: number } = {}): Displayable {
  const columns = Object.keys(rows[0] ?? {})
  const numeric = new Set(columns.filter((column) => rows.every((row) => typeof row[column] === 'number')))
  const cell = (tag: 'td' | 'th', column: string, text: string) =>
    `<${tag} style="text-align:${numeric.has(column) ? 'right' : 'left'}">${escapeHtml(text)}</${tag}>`
  const head = columns.map((column) => cell('th', column, column)).join('')
  const body = rows
    .slice(0, limit)
    .map((row) => `<tr>${columns.map((column) => cell('td', column, told(row[column]))).join('')}</tr>`)
  const more = rows.length > limit ? `<p>${rows.length - limit} more rows</p>` : ''
  const caption =
    title === undefined
      ? ''
      : `<caption style="text-align:left;font-weight:600;padding-bottom:.4em">${escapeHtml(title)}</caption>`
  const html = `<table>${caption}<thead><tr>${head}</tr></thead><tbody>${body.join('')}</tbody></table>${more}`
  const widths = columns.map((column) => Math.max(column.length, ...rows.slice(0, limit).map((row) => told(row[column]).length)))
  const line = (texts: string[]) =>
    texts
      .map((text, i) => text.padEnd(widths[i]!))
      .join('  ')
      .trimEnd()
  const lines = [line(columns), ...rows.slice(0, limit).map((row) => line(columns.map((column) => told(row[column]))))]
  return shown({ 'text/html': html, 'text/plain': lines.join('\n') })
}

function told(value: unknown): string {
  if (typeof value === 'number') return formatNumber(value)
  if (value === null || value === undefined) return ''
  return shorten(typeof value === 'string' ? value : JSON.stringify(value), 200)
}

function formatNumber(value: number): string {
  return String(Number.isInteger(value) ? value : Number(value.toPrecision(4))).replace('-', '−')
}

function signed(value: number): string {
  return `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(2)}`
}
