// An executed notebook as one HTML page that needs no network: prose, code, outputs, contents, charts drawn by an inlined plotly.js.

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { Marked } from 'marked'
import { escapeHtml } from '../display/mime'
import { type CodeCell, hasTag, isCode, type Notebook } from './notebook'
import { outputsHtml, PLOTLY_MIME } from './notebook-html-outputs'
import { PAGE_SCRIPT } from './notebook-html-script'
import { PAGE_STYLE } from './notebook-html-style'
import { highlightCode, inlineMath, mathBlocks } from './notebook-html-text'
import { duration } from './run-terminal'

interface Heading {
  readonly depth: number
  readonly id: string
  readonly html: string
}

/** The page. `name` is the notebook's file name, used when it has no first heading. */
export function notebookPage(notebook: Notebook, { name }: { name: string }): string {
  const headings: Heading[] = []
  const markdown = createMarkdown(headings)
  const body = notebook.cells.map((cell) => {
    if (isCode(cell)) return codeCell(cell, markdown)
    return cell.cell_type === 'markdown' ? `<section class="prose">${markdown(cell.source)}</section>` : ''
  })
  const title = headings.find(({ depth }) => depth === 1)?.html.replace(/<[^>]*>/g, '') ?? escapeHtml(name)
  const charts = notebook.cells.some(
    (cell) => isCode(cell) && cell.outputs.some((out) => 'data' in out && PLOTLY_MIME in out.data),
  )
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${title}</title>
<style>${PAGE_STYLE}</style>
</head>
<body>
<nav class="contents" aria-label="Contents">${contents(headings)}</nav>
<main>
${body.join('\n')}
<footer>${footer(notebook, name)}</footer>
</main>
${charts ? `<script>${plotlySource()}</script>\n` : ''}<script>${PAGE_SCRIPT}</script>
</body>
</html>
`
}

/** Markdown → HTML; raw HTML of the notebook's author passes, headings are collected for the contents. */
function createMarkdown(headings: Heading[]): (source: string) => string {
  const used = new Map<string, number>()
  const marked = new Marked({ extensions: [mathBlocks, inlineMath] })
  marked.use({
    renderer: {
      heading({ tokens, depth }) {
        const html = this.parser.parseInline(tokens)
        const id = slug(html, used)
        headings.push({ depth, id, html })
        return `<h${depth} id="${id}">${html}<a class="anchor" href="#${id}" aria-label="Link to this section">#</a></h${depth}>\n`
      },
      code: ({ text, lang }) => `<pre class="fence"><code>${highlightCode(text, lang ?? '')}</code></pre>\n`,
    },
  })
  return (source) =>
    (marked.parse(source, { async: false }) as string)
      .replace(/<table>/g, '<div class="scroll"><table>')
      .replace(/<\/table>/g, '</table></div>')
}

function codeCell(cell: CodeCell, markdown: (source: string) => string): string {
  if (cell.source.trim() === '' || hasTag(cell, 'remove-cell')) return ''
  const label = hasTag(cell, 'parameters') ? 'parameters' : hasTag(cell, 'injected-parameters') ? 'set for this run' : ''
  const seconds = secondsOf(cell)
  const marks = [label, seconds !== null && seconds >= 0.1 ? duration(seconds) : ''].filter(Boolean)
  const head = `<div class="mark"><span>${cell.execution_count ?? ''}</span>${marks.map((mark) => `<span>${mark}</span>`).join('')}</div>`
  const code = `<pre class="code"><code>${highlightCode(cell.source, 'typescript')}</code></pre>`
  return `<section class="cell">${head}${code}${outputsHtml(cell.outputs, markdown)}</section>`
}

function contents(headings: readonly Heading[]): string {
  const entries = headings.filter(({ depth }) => depth <= 3)
  const links = entries.map(
    ({ depth, id, html }) => `<li class="d${depth}"><a href="#${id}">${html.replace(/<\/?a\b[^>]*>/g, '')}</a></li>`,
  )
  return links.length > 1 ? `<details open><summary>Contents</summary><ol>${links.join('')}</ol></details>` : ''
}

function footer(notebook: Notebook, name: string): string {
  const times = notebook.cells.filter(isCode).map(secondsOf)
  const total = times.reduce<number>((sum, seconds) => sum + (seconds ?? 0), 0)
  const took = total > 0 ? ` in ${duration(total)}` : ''
  return `${escapeHtml(name)}, executed by arbor-nb${took} on ${new Date().toISOString().slice(0, 10)}`
}

/** How long the cell took, as its metadata records it. */
function secondsOf(cell: CodeCell): number | null {
  const { execution } = cell.metadata as { execution?: Record<string, string> }
  const [from, to] = [execution?.['iopub.execute_input'], execution?.['shell.execute_reply']]
  return from && to ? (Date.parse(to) - Date.parse(from)) / 1000 : null
}

function slug(html: string, used: Map<string, number>): string {
  const text = html.replace(/<[^>]*>|&[^;]+;/g, '')
  const base =
    text
      .toLowerCase()
      .replace(/[^\p{L}\p{N}]+/gu, '-')
      .replace(/^-+|-+$/g, '') || 'section'
  const count = used.get(base) ?? 0
  used.set(base, count + 1)
  return count === 0 ? base : `${base}-${count}`
}

function plotlySource(): string {
  const file = createRequire(__filename).resolve('plotly.js/dist/plotly-basic.min.js')
  return readFileSync(file, 'utf8').replace(/<\/script/gi, '<\\/script')
}
