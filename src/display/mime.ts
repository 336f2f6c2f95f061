// The two symbols that a notebook and this library share: how a value shows itself, and where live output goes.

import { terminalHost } from './terminal'

/** MIME type → text, or JSON for types that end in +json. */
export type MimeBundle = Record<string, unknown>

/** Deno's convention, kept by our kernel too: the method of this name answers a MIME bundle. */
export const DISPLAY: unique symbol = Symbol.for('Jupyter.display') as never

/** A value that a notebook can show. */
export interface Displayable {
  [DISPLAY](): MimeBundle
}

/** Where output goes while a notebook runs; the host installs it on globalThis. */
export interface DisplayHost {
  display(bundle: MimeBundle, options?: { displayId?: string }): void
  update(bundle: MimeBundle, displayId: string): void
  /** Where our script may be missing every chart comes with its picture; where nothing can be drawn none is shown. Default: live ones. */
  readonly charts?: 'pictures' | 'none'
}

const HOST = Symbol.for('arbor-nb.display-host')

let terminal: DisplayHost | null | undefined

/** The notebook we run in: our executor's host, else one made of tslab's `display`; else the terminal; else null. */
export function displayHost(): DisplayHost | null {
  const host = (globalThis as unknown as Record<symbol, DisplayHost | undefined>)[HOST] ?? tslabHost()
  if (host) return host
  if (terminal === undefined) terminal = terminalHost(process.stderr)
  return terminal
}

/** Shows `value` now, for the middle of a cell. Nothing happens where there is no notebook. */
export function show(value: Displayable): void {
  displayHost()?.display(value[DISPLAY]())
}

/** A Displayable with a fixed bundle. */
export function shown(bundle: MimeBundle): Displayable {
  return { [DISPLAY]: () => bundle }
}

/** Text that means itself in HTML, in elements and in quoted attributes. All text of a model goes through here. */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`)
}

/** At most `length` characters, on one line. */
export function shorten(text: string, length: number): string {
  const line = text.replace(/\s+/g, ' ').trim()
  return line.length <= length ? line : `${line.slice(0, length - 1)}…`
}

interface TslabDisplay {
  raw(mime: string, content: string): void
}

/** Under the stock kernel of tslab, which shows one MIME type at a time. */
function tslabHost(): DisplayHost | null {
  const { __tslab__: cells } = globalThis as { __tslab__?: { require(id: string): { newDisplay(): TslabDisplay } } }
  if (!cells) return null
  const write = (display: TslabDisplay, bundle: MimeBundle) => {
    const mime = ['text/html', 'text/plain'].find((type) => typeof bundle[type] === 'string')
    if (mime) display.raw(mime, String(bundle[mime]))
  }
  return {
    charts: 'pictures',
    display(bundle, { displayId } = {}) {
      const display = cells.require('tslab').newDisplay()
      if (displayId !== undefined) tslabDisplays.set(displayId, display)
      write(display, bundle)
    },
    update(bundle, displayId) {
      const display = tslabDisplays.get(displayId)
      if (display) write(display, bundle)
    },
  }
}

const tslabDisplays = new Map<string, TslabDisplay>()
