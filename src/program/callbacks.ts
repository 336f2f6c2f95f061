// Callbacks: who wants to watch modules, language models and tools at work, with which call came from which.

import { context, currentSettings } from './context'

export interface CallStart<T = unknown> {
  readonly callId: string
  /** The call that this one is part of; null for an outermost one. */
  readonly parentId: string | null
  /** The module, language model or tool. */
  readonly instance: T
  readonly inputs: unknown
}

/** The result, or the error. */
export interface CallEnd {
  readonly callId: string
  readonly outputs?: unknown
  readonly error?: unknown
}

/** Every method is optional. What a callback throws is reported as a warning and changes nothing. */
export interface Callback {
  onModuleStart?(call: CallStart): void
  onModuleEnd?(call: CallEnd): void
  onLmStart?(call: CallStart): void
  onLmEnd?(call: CallEnd): void
  onToolStart?(call: CallStart): void
  onToolEnd?(call: CallEnd): void
}

let calls = 0

/** Runs a call under the watch of the context's callbacks; without any it is just run. */
export async function watched<T>(
  kind: 'Module' | 'Lm' | 'Tool',
  call: { instance: unknown; inputs: unknown },
  run: () => Promise<T>,
): Promise<T> {
  const { callbacks, activeCall } = currentSettings()
  if (callbacks.length === 0) return run()
  const callId = `call-${++calls}`
  tell(callbacks, `on${kind}Start`, { callId, parentId: activeCall, ...call })
  try {
    const outputs = await context({ activeCall: callId }, run)
    tell(callbacks, `on${kind}End`, { callId, outputs })
    return outputs
  } catch (error) {
    tell(callbacks, `on${kind}End`, { callId, error })
    throw error
  }
}

function tell(callbacks: readonly Callback[], method: keyof Callback, event: CallStart | CallEnd): void {
  for (const callback of callbacks) {
    try {
      ;(callback[method] as ((event: CallStart | CallEnd) => void) | undefined)?.call(callback, event)
    } catch (error) {
      currentSettings().onWarning?.(`The callback ${method} threw: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
}
