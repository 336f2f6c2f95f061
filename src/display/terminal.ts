// A terminal in place of a notebook, for programs that run by themselves: what changes is one line, written again and again.

import type { DisplayHost, MimeBundle } from './mime'

interface Terminal {
  readonly isTTY?: boolean
  readonly columns?: number
  write(text: string): unknown
}

/** Shows texts on `stream`, and leaves charts out; null where it is no terminal. */
export function terminalHost(stream: Terminal): DisplayHost | null {
  if (!stream.isTTY) return null
  let living: string | null = null
  const leaveLine = () => {
    if (living !== null) stream.write('\n')
    living = null
  }
  const write = (bundle: MimeBundle, displayId: string | null) => {
    const text = String(bundle['text/plain'] ?? '')
    if (living !== displayId) leaveLine()
    if (displayId === null) stream.write(`${text}\n`)
    else stream.write(`\r\x1b[2K${text.split('\n')[0]!.slice(0, (stream.columns ?? 80) - 1)}`)
    living = displayId
  }
  process.once('exit', leaveLine)
  return {
    charts: 'none',
    display: (bundle, { displayId } = {}) => write(bundle, displayId ?? null),
    update: write,
  }
}
