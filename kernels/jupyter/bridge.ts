// What the two threads of the kernel tell each other: the worker talks to Jupyter, the main thread runs the cells.
// Beside the messages they share five integers, because a main thread that is busy reads no messages.

import type { CompletionAnswer, InspectionAnswer, IsCompleteAnswer } from './language'
import type { MimeBundle } from './mime'
import type { CellError } from './positions'
import type { StreamName } from './streams'

/** Where and how Jupyter wants to reach the kernel: the connection file. */
export interface Connection {
  readonly transport: 'tcp' | 'ipc'
  readonly ip: string
  readonly shell_port: number
  readonly iopub_port: number
  readonly stdin_port: number
  readonly control_port: number
  readonly hb_port: number
  readonly key: string
  readonly signature_scheme: string
}

export interface WorkerSetup {
  readonly connection: Connection
  readonly flags: SharedArrayBuffer
  readonly historyFile: string
  readonly banner: KernelBanner
}

export interface KernelBanner {
  readonly version: string
  readonly typescript: string
}

/** Indices into the shared integers. */
export const FLAG = {
  /** 1 while the compiler runs: it must not be terminated in the middle. */
  compiling: 0,
  /** Interrupts asked for so far. */
  interrupts: 1,
  /** UTF-16 units of output that the worker has not sent yet. */
  pending: 2,
  /** Messages of output that the worker has not read yet. */
  unread: 3,
  /** 1 when the running cell's code has read the host's signal: it ends by itself, and is given time for it. */
  heeds: 4,
} as const
export const FLAG_BYTES = 20

export interface ExecuteCommand {
  readonly kind: 'execute'
  readonly cell: string
  readonly code: string
  readonly silent: boolean
  readonly userExpressions: Readonly<Record<string, string>>
}

export interface Question {
  readonly kind: 'ask'
  readonly id: number
  readonly what: 'complete' | 'inspect' | 'isComplete'
  readonly code: string
  /** UTF-16 offset of the cursor. */
  readonly offset: number
}

export interface CommEvent {
  readonly kind: 'comm'
  /** The cell whose code sends it; null for one from the frontend. */
  readonly cell: string | null
  readonly type: 'comm_open' | 'comm_msg' | 'comm_close'
  readonly content: { readonly comm_id: string; readonly target_name?: string; readonly data: unknown }
  readonly metadata: Record<string, unknown>
  readonly buffers: readonly Uint8Array[]
}

export type ToMain =
  | ExecuteCommand
  | Question
  | CommEvent
  | { readonly kind: 'input'; readonly id: number; readonly value: string | null }
  | { readonly kind: 'interrupt'; readonly id: number }
  | { readonly kind: 'exit' }

/** How a cell ended. `bundle` is the result's; null when there is none. */
export type Outcome =
  | {
      readonly status: 'ok'
      readonly bundle: MimeBundle | null
      readonly expressions: Readonly<Record<string, unknown>>
      readonly page?: MimeBundle
    }
  | { readonly status: 'error'; readonly error: Pick<CellError, 'ename' | 'evalue' | 'traceback'> }

export type Answer = CompletionAnswer | InspectionAnswer | IsCompleteAnswer

export type OutputEvent =
  | { readonly kind: 'stream'; readonly cell: string; readonly name: StreamName; readonly text: string }
  | {
      readonly kind: 'display'
      readonly cell: string
      readonly bundle: MimeBundle
      readonly displayId: string | null
      readonly update: boolean
    }
  | { readonly kind: 'clear'; readonly cell: string; readonly wait: boolean }

export type ToWorker =
  | OutputEvent
  | CommEvent
  | { readonly kind: 'done'; readonly cell: string; readonly outcome: Outcome }
  | { readonly kind: 'answer'; readonly id: number; readonly answer: Answer }
  | { readonly kind: 'input'; readonly cell: string; readonly id: number; readonly prompt: string; readonly password: boolean }
  | { readonly kind: 'acknowledge'; readonly id: number }
  | { readonly kind: 'signal' }
