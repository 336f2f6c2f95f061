// Pieces of text for the page: escaping, coloured code, formulas, terminal colours.

import { createRequire } from 'node:module'
import hljs from 'highlight.js/lib/common'
import type { TokenizerAndRendererExtension } from 'marked'
import { escapeHtml } from '../display/mime'

/** Coloured HTML of `code`; a language that highlight.js doesn't know stays plain. */
export function highlightCode(code: string, language: string): string {
  const name = language.trim().split(/\s/)[0]?.toLowerCase() ?? ''
  return hljs.getLanguage(name) ? hljs.highlight(code, { language: name, ignoreIllegals: true }).value : escapeHtml(code)
}

/** `$$ … $$` as a block of its own. */
export const mathBlocks: TokenizerAndRendererExtension = {
  name: 'mathBlock',
  level: 'block',
  start: (source) => source.match(/^\$\$/m)?.index,
  tokenizer(source) {
    const match = /^\$\$\s*([\s\S]+?)\s*\$\$[ \t]*(?:\n|$)/.exec(source)
    return match ? { type: 'mathBlock', raw: match[0], text: match[1] } : undefined
  },
  renderer: ({ text }) => `<div class="formula scroll">${formula(String(text), true)}</div>\n`,
}

/** `$ … $` within a line; no space inside the dollars, so that prices stay prices. */
export const inlineMath: TokenizerAndRendererExtension = {
  name: 'inlineMath',
  level: 'inline',
  start: (source) => source.match(/\$(?=\S)/)?.index,
  tokenizer(source) {
    const match = /^\$(?=\S)((?:\\.|[^$\\\n])*?[^\s\\])\$(?!\d)/.exec(source)
    return match ? { type: 'inlineMath', raw: match[0], text: match[1] } : undefined
  },
  renderer: ({ text }) => formula(String(text), false),
}

interface Katex {
  renderToString(tex: string, options: { output: 'mathml'; displayMode: boolean; throwOnError: boolean }): string
}

/** MathML when KaTeX is installed (browsers draw it without fonts of ours), else the TeX source as it was written. */
function formula(tex: string, displayMode: boolean): string {
  const katex = optional<Katex>('katex')
  return katex
    ? katex.renderToString(tex, { output: 'mathml', displayMode, throwOnError: false })
    : `<span class="tex">${escapeHtml(tex)}</span>`
}

function optional<T>(name: string): T | null {
  try {
    return createRequire(__filename)(name) as T
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'MODULE_NOT_FOUND') return null
    throw error
  }
}

/** Printed text: carriage returns overwrite, backspaces and colours are dropped. */
export function plainTerminalText(text: string): string {
  const plain = text.replace(/\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07/g, '')
  return plain
    .split('\n')
    .map((line) => line.replace(/\r$/, '').split('\r').at(-1) ?? '')
    .join('\n')
}
