// What the library has to say that is no error, under the cell: a missing input, an answer cut off. Each text once a session, as Python does.

import { displayHost, escapeHtml, shorten } from './mime'

const told = new Set<string>()
/** A program that warns otherwise at every call should not fill the notebook. */
const MOST = 50
const CHARACTERS = 400

/** Registered as the setting `onWarning` (src/index.ts). Shows nothing where there is no notebook and no terminal. */
export function drawWarning(text: string): void {
  const host = displayHost()
  if (!host || told.size >= MOST || told.has(text)) return
  told.add(text)
  const last = told.size === MOST ? ' (Further warnings are not shown; the setting onWarning hears them all.)' : ''
  const line = `Warning: ${shorten(text, CHARACTERS)}${last}`
  host.display({ 'text/plain': line, 'text/html': `<div style="opacity:.75;font-size:.9em">⚠ ${escapeHtml(line)}</div>` })
}

/** The text stands elsewhere already, under a chart. */
export function toldElsewhere(text: string): void {
  if (told.size < MOST) told.add(text)
}
