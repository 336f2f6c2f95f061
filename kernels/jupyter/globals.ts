// What every cell finds without an import: display, prompt, and the namespace `jupyter`. The declarations below are what its type
// checker knows of them; notebook.ts puts the functions in place.

export const GLOBALS = `
interface JupyterComm {
  readonly id: string
  readonly target: string
  send(data: unknown, options?: { metadata?: Record<string, unknown>; buffers?: Uint8Array[] }): void
  close(data?: unknown): void
  /** Called with each message of the other side. */
  onMessage: ((data: any, buffers: Uint8Array[]) => void) | null
  onClose: ((data: any) => void) | null
}
/** Shows a value under the running cell; with \`update\`, in place of what was shown under the same \`displayId\`. */
declare function display(value: unknown, options?: { displayId?: string; update?: boolean }): Promise<void>
/** Asks the person at the notebook; await the answer. */
declare function prompt(question?: string, options?: { password?: boolean }): Promise<string>
declare const jupyter: {
  /** Shows a MIME bundle as it is. */
  displayBundle(bundle: Record<string, unknown>, options?: { displayId?: string; update?: boolean }): void
  /** Removes what the running cell shows; with \`wait\`, only when something new is shown. */
  clearOutput(wait?: boolean): void
  /** Opens a comm to code of that name in the frontend. */
  openComm(target: string, data?: unknown, options?: { metadata?: Record<string, unknown>; buffers?: Uint8Array[] }): JupyterComm
  /** Receives the comms that the frontend opens under that name. */
  onComm(target: string, handler: (comm: JupyterComm, data: any) => void): void
}
`
