// The notebook as code of a cell sees it: the functions of globals.ts, put on globalThis, and the host that library code finds there.

import { randomUUID } from 'node:crypto'
import { bundleNow, type MimeBundle } from './mime'

export interface DisplayEvent {
  readonly cell: string
  readonly bundle: MimeBundle
  /** Names the output so that it can be replaced; null = can't be. */
  readonly displayId: string | null
  /** Replace what `displayId` shows rather than add an output. */
  readonly update: boolean
}

/** What library code finds under `Symbol.for('arbor-nb.display-host')` on globalThis while a notebook runs. */
export interface DisplayHost {
  display(bundle: MimeBundle, options?: { displayId?: string }): void
  update(bundle: MimeBundle, displayId: string): void
  /** Aborted when the running cell is interrupted; who reads it is given time to end by itself. */
  readonly signal: AbortSignal
}

/** What the functions do; all know the cell that calls them. */
export interface NotebookActions {
  show(bundle: MimeBundle, displayId: string | null, update: boolean): void
  clear(wait: boolean): void
  prompt(question: string, password: boolean): Promise<string>
  comm(type: CommType, content: CommContent, options: CommOptions): void
  signal(): AbortSignal
}

export type CommType = 'comm_open' | 'comm_msg' | 'comm_close'
export interface CommContent {
  readonly comm_id: string
  readonly target_name?: string
  readonly data: unknown
}
export interface CommOptions {
  readonly metadata?: Record<string, unknown>
  readonly buffers?: readonly Uint8Array[]
}

const HOST = Symbol.for('arbor-nb.display-host')
const NAMES = ['display', 'prompt', 'jupyter'] as const
const shared = globalThis as unknown as Record<symbol | string, unknown>

/** Puts the notebook's functions on globalThis. */
export class Notebook {
  private readonly targets = new Map<string, (comm: Comm, data: unknown) => void>()
  private readonly comms = new Map<string, Comm>()

  constructor(private readonly actions: NotebookActions) {
    const { show } = actions
    shared[HOST] = {
      display: (bundle, { displayId } = {}) => show(bundle, displayId ?? null, false),
      update: (bundle, displayId) => show(bundle, displayId, true),
      get signal() {
        return actions.signal()
      },
    } satisfies DisplayHost
    Object.assign(shared, {
      display: (value: unknown, options: DisplayOptions = {}) => this.display(value, options),
      prompt: (question = '', { password = false } = {}) => actions.prompt(String(question), password),
      jupyter: {
        displayBundle: (bundle: MimeBundle, { displayId, update = false }: DisplayOptions = {}) =>
          show(bundle, displayId ?? null, update),
        clearOutput: (wait = false) => actions.clear(wait),
        openComm: (target: string, data: unknown = {}, options: CommOptions = {}) => this.openComm(target, data, options),
        onComm: (target: string, handler: (comm: Comm, data: unknown) => void) => void this.targets.set(target, handler),
      },
    })
  }

  /** A comm message of the frontend. */
  receive(type: CommType, content: CommContent, buffers: readonly Uint8Array[]): void {
    const { comm_id: id, data } = content
    if (type === 'comm_open') {
      const target = String(content.target_name)
      const handler = this.targets.get(target)
      if (handler) handler(this.created(id, target), data)
      // The protocol's answer to a name that nobody knows.
      else this.actions.comm('comm_close', { comm_id: id, data: {} }, {})
      return
    }
    const comm = this.comms.get(id)
    if (type === 'comm_msg') comm?.onMessage?.(data, buffers)
    else {
      this.comms.delete(id)
      comm?.onClose?.(data)
    }
  }

  close(): void {
    delete shared[HOST]
    for (const name of NAMES) delete shared[name]
  }

  private async display(value: unknown, { displayId, update = false }: DisplayOptions): Promise<void> {
    const bundle = bundleNow(value)
    // A plain value is shown at once, so that it keeps its place among what is printed.
    this.actions.show(bundle instanceof Promise ? await bundle : bundle, displayId ?? null, update)
  }

  private openComm(target: string, data: unknown, options: CommOptions): Comm {
    const comm = this.created(randomUUID(), target)
    this.actions.comm('comm_open', { comm_id: comm.id, target_name: target, data }, options)
    return comm
  }

  private created(id: string, target: string): Comm {
    const comm = new Comm(id, target, (type, content, options) => {
      if (type === 'comm_close') this.comms.delete(id)
      this.actions.comm(type, content, options)
    })
    this.comms.set(id, comm)
    return comm
  }
}

interface DisplayOptions {
  readonly displayId?: string
  readonly update?: boolean
}

/** A line between code of the notebook and code of the frontend. */
export class Comm {
  onMessage: ((data: unknown, buffers: readonly Uint8Array[]) => void) | null = null
  onClose: ((data: unknown) => void) | null = null

  constructor(
    readonly id: string,
    readonly target: string,
    private readonly post: NotebookActions['comm'],
  ) {}

  send(data: unknown, options: CommOptions = {}): void {
    this.post('comm_msg', { comm_id: this.id, data }, options)
  }

  close(data: unknown = {}): void {
    this.post('comm_close', { comm_id: this.id, data }, {})
  }
}
