// The latest calls of language models as a person reads them: as dspy's `inspect_history` prints them, and drawn in a notebook.

import type { HistoryEntry } from './base-lm'
import { escapeHtml } from './html'
import { strip } from './python-text'

/** A value that shows itself: the last line of a cell draws it, `console.log` and `String` give its text. */
export class HistoryView {
  readonly entries: readonly HistoryEntry[]

  constructor(entries: readonly HistoryEntry[]) {
    this.entries = entries
  }

  toString(): string {
    return `${this.entries.map(entryText).join('')}\n\n\n\n`
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString()
  }

  /** What a notebook shows. */
  [Symbol.for('Jupyter.display')](): Record<string, string> {
    const html = this.entries.length > 0 ? this.entries.map(entryHtml).join('') : '<p>No calls yet.</p>'
    return { 'text/plain': this.toString(), 'text/html': html }
  }
}

/** Line by line what dspy prints into a file. */
function entryText({ time, messages, outputs }: HistoryEntry): string {
  const turns = messages.map(({ role, content }) => `${capitalized(role)} message:\n\n${strip(content)}\n\n\n`)
  const others = outputs.length > 1 ? ` \t (and ${outputs.length - 1} other completions)\n` : ''
  return `\n\n\n\n[${time.toISOString()}]\n\n${turns.join('')}Response:\n\n${strip(outputs[0]?.text ?? '')}\n\n${others}`
}

const MESSAGE = 'margin:4px 0;padding:4px 10px;border-left:3px solid'
const COLOURS: Readonly<Record<string, string>> = { system: '#8884', user: '#4a90d988', assistant: '#9b59b688' }

function entryHtml({ time, model, messages, outputs, usage, cacheHit }: HistoryEntry): string {
  const block = (title: string, text: string, colour: string) =>
    `<div style="${MESSAGE} ${colour}"><b>${escapeHtml(title)}</b><pre style="white-space:pre-wrap;margin:2px 0">${escapeHtml(strip(text))}</pre></div>`
  const turns = messages.map(({ role, content }) => block(capitalized(role), content, COLOURS[role] ?? '#8884'))
  const answers = outputs.map(({ text }, i) => block(outputs.length > 1 ? `Response ${i + 1}` : 'Response', text, '#27ae60'))
  const cost = cacheHit ? 'from the cache' : `${usage.promptTokens} + ${usage.completionTokens} tokens`
  const head = `${escapeHtml(model)} · ${time.toLocaleTimeString()} · ${cost}`
  return `<details open><summary>${head}</summary>${[...turns, ...answers].join('')}</details>`
}

function capitalized(role: string): string {
  return role.slice(0, 1).toUpperCase() + role.slice(1)
}
