import { describe, expect, it } from 'vitest'
import { type Output, parseNotebook } from './notebook'
import { notebookPage } from './notebook-html'

/** The page of a notebook with one markdown cell, or one code cell with `outputs`. */
function page(source: string, outputs?: Output[]): string {
  const cell = outputs
    ? { cell_type: 'code', metadata: {}, source, outputs, execution_count: 1 }
    : { cell_type: 'markdown', metadata: {}, source }
  const notebook = { nbformat: 4, nbformat_minor: 4, metadata: {}, cells: [cell] }
  return notebookPage(parseNotebook(JSON.stringify(notebook), 'test.ipynb'), { name: 'test.ipynb' })
}

describe('the page', () => {
  it('lists the headings, with different ids for the same words', () => {
    const html = page('# Title & more\n\n## Twice\n\n## Twice\n\n#### Deep')
    expect(html).toContain('<title>Title &amp; more</title>')
    expect([...html.matchAll(/<li class="d\d"><a href="(#[^"]+)"/g)].map((match) => match[1])).toEqual([
      '#title-more',
      '#twice',
      '#twice-1',
    ])
    expect(html).toContain('<h2 id="twice-1">')
  })

  it('takes the file name when there is no heading', () => {
    expect(page('plain')).toContain('<title>test.ipynb</title>')
  })

  it('keeps formulas together and prices as they are', () => {
    const html = page('It costs $5 and $6. The sum $r_i * r_j$ and\n\n$$\nA_i = r_i - m\n$$\n')
    expect(html).toContain('It costs $5 and $6.')
    expect(html).not.toContain('<em>')
    expect(html).toContain('class="formula')
  })

  it('colours code and escapes what it does not know', () => {
    expect(page('```ts\nconst a = 1\n```')).toContain('<span class="hljs-keyword">const</span>')
    expect(page('```nolanguage\n<b>\n```')).toContain('&#60;b&#62;')
  })

  it('shows what a terminal would have shown in the end', () => {
    const text = 'loading 1\rloading 2\r\n\x1b[31mred\x1b[0m\n'
    const html = page('1', [{ output_type: 'stream', name: 'stdout', text }])
    expect(html).toContain('<pre class="stream stdout">loading 2\nred</pre>')
  })

  it('cuts the middle out of a very long print', () => {
    const text = Array.from({ length: 1000 }, (_, i) => `line ${i}`).join('\n')
    const html = page('1', [{ output_type: 'stream', name: 'stdout', text }])
    expect(html).toContain('line 199\n… 600 lines are not shown here …\nline 800')
  })

  it('carries plotly.js only for a chart', () => {
    const data = { 'application/vnd.plotly.v1+json': { data: [], layout: {} }, 'text/plain': 'a chart' }
    expect(page('1', [{ output_type: 'display_data', data, metadata: {} }]).length).toBeGreaterThan(1_000_000)
    expect(page('1', []).length).toBeLessThan(20_000)
  })

  it('prefers HTML to text, and draws pictures', () => {
    const shown = (data: Record<string, unknown>) => page('1', [{ output_type: 'display_data', data, metadata: {} }])
    expect(shown({ 'text/plain': 'plain', 'text/html': '<i>rich</i>' })).toContain('<i>rich</i>')
    expect(shown({ 'image/png': 'aGk=\n' })).toContain('src="data:image/png;base64,aGk="')
    expect(shown({ 'text/markdown': '**bold**' })).toContain('<strong>bold</strong>')
  })
})
