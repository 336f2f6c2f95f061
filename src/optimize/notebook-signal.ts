// How an optimizer hears that somebody interrupts the cell it runs in.

/** In a notebook: aborted when the cell is interrupted; the host of displays holds it. Elsewhere undefined. */
export function notebookSignal(): AbortSignal | undefined {
  const host = (globalThis as Record<symbol, unknown>)[Symbol.for('arbor-nb.display-host')] as
    | { signal?: AbortSignal }
    | undefined
  return host?.signal
}
