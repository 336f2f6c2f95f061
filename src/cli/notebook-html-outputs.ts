// Outputs of a cell as HTML. What a program returned as HTML is shown as it is (the notebook ran here); all other text is escaped.

import { escapeHtml } from '../display/mime'
import type { Bundle, Output } from './notebook'
import { plainTerminalText } from './notebook-html-text'

const KEPT_LINES = 200
export const PLOTLY_MIME = 'application/vnd.plotly.v1+json'

/** The outputs in order, or nothing. */
export function outputsHtml(outputs: readonly Output[], markdown: (source: string) => string): string {
  const parts = outputs.map((output) => outputHtml(output, markdown)).filter(Boolean)
  return parts.length > 0 ? `<div class="outputs">${parts.join('\n')}</div>` : ''
}

function outputHtml(output: Output, markdown: (source: string) => string): string {
  if (output.output_type === 'stream')
    return pre(`stream ${output.name}`, cutMiddle(plainTerminalText(output.text).replace(/\n$/, '')))
  if (output.output_type === 'error') return pre('error', plainTerminalText(output.traceback.join('\n')))
  return bundleHtml(output.data, markdown)
}

/** The beginning and the end of a long print; all of it is in the notebook. */
function cutMiddle(printed: string): string {
  const lines = printed.split('\n')
  const left = lines.length - 2 * KEPT_LINES
  return left <= 0
    ? printed
    : [...lines.slice(0, KEPT_LINES), `… ${left} lines are not shown here …`, ...lines.slice(-KEPT_LINES)].join('\n')
}

/** The richest representation that the page can draw. */
function bundleHtml(data: Bundle, markdown: (source: string) => string): string {
  if (data[PLOTLY_MIME]) return chart(data[PLOTLY_MIME], text(data, 'text/plain'))
  if ('text/html' in data) return `<div class="html scroll">${text(data, 'text/html')}</div>`
  if ('text/markdown' in data) return `<div class="html">${markdown(text(data, 'text/markdown'))}</div>`
  if ('image/svg+xml' in data) return image('svg+xml', Buffer.from(text(data, 'image/svg+xml')).toString('base64'))
  if ('image/png' in data) return image('png', text(data, 'image/png').trim())
  const plain = text(data, 'text/plain')
  return plain === '' ? '' : pre('value', plain)
}

/** The figure's JSON beside an empty box; the page's script draws it. */
function chart(figure: unknown, summary: string): string {
  const json = JSON.stringify(figure).replace(/</g, '\\u003c')
  return `<figure class="chart" aria-label="${escapeHtml(summary)}"><div></div><script type="application/json">${json}</script></figure>`
}

function image(type: string, base64: string): string {
  return `<img class="picture" alt="" src="data:image/${type};base64,${escapeHtml(base64)}">`
}

function pre(kind: string, content: string): string {
  return content === '' ? '' : `<pre class="${kind}">${escapeHtml(content)}</pre>`
}

function text(data: Bundle, mime: string): string {
  const content = data[mime]
  return typeof content === 'string' ? content : ''
}
