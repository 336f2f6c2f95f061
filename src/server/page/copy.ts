// A button that copies a text: a model's name, a folder's path.

import { type Element_, h } from './dom.js'
import { changed, state } from './state.js'

const SAID_MS = 1500
const TICK = 'M3 8.5L6.5 12L13 4.5'
const SHEETS =
  'M5.5 5.5V3.5A1 1 0 0 1 6.5 2.5H12.5A1 1 0 0 1 13.5 3.5V9.5A1 1 0 0 1 12.5 10.5H10.5M3.5 5.5H9.5A1 1 0 0 1 10.5 6.5V12.5A1 1 0 0 1 9.5 13.5H3.5A1 1 0 0 1 2.5 12.5V6.5A1 1 0 0 1 3.5 5.5Z'

/** `label` is for those who can't see the picture. */
export function copyButton(text: string, label: string): Element_ {
  const done = state.copied === text
  const said = done ? 'Copied' : label
  const picture = h(
    'svg',
    { width: 16, height: 16, viewBox: '0 0 16 16', 'aria-hidden': 'true' },
    h('path', { d: done ? TICK : SHEETS }),
  )
  return h('button', { type: 'button', class: 'copy', 'aria-label': said, title: said, onclick: () => void copy(text) }, picture)
}

async function copy(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text)
  } catch (error) {
    return console.info(error) // a page that isn't of this machine may not: the text can still be selected
  }
  state.copied = text
  changed({ now: true })
  setTimeout(() => {
    if (state.copied === text) state.copied = ''
    changed()
  }, SAID_MS)
}
