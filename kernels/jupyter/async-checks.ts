// Node checks that every asynchronous callback leaves as it entered, and ends the process if one doesn't. A terminated loop never leaves,
// so in a kernel the check must be off. `--no-force-async-hooks-checks` does that until somebody uses an AsyncLocalStorage (Node 20 and 22
// build it on async hooks, which turn the check on again); the two counters behind it are reached through process.binding.

import { createHook } from 'node:async_hooks'

interface AsyncWrap {
  setPromiseHooks(...hooks: readonly undefined[]): void
  readonly constants: { readonly kCheck: number; readonly kTotals: number }
  readonly async_hook_fields: Uint32Array
}

/** Turns the check off again; to be called before code that may be terminated. Does nothing where Node has no such counters. */
export function tolerateTermination(): void {
  const { constants, async_hook_fields: fields } = (wrap ??= asyncWrap())
  if (!fields || !constants) return
  fields[constants.kCheck] = 0
  fields[constants.kTotals] = 0
}

const BEFORE = Symbol.for('arbor-nb.before-termination')

/** What the worker has evaluated in the main thread, in the middle of whatever runs there, before it terminates that. */
export const BEFORE_TERMINATION = "globalThis[Symbol.for('arbor-nb.before-termination')]?.()"

/**
 * A termination that falls into one of Node's hooks around promises is swallowed, and V8 then refuses further ones; a loop of awaits
 * spends most of its time there. So the hooks are taken off first.
 */
export function prepareTermination(): void {
  Object.assign(globalThis, {
    [BEFORE]: () => (wrap ??= asyncWrap()).setPromiseHooks?.(undefined, undefined, undefined, undefined),
  })
}

/** Puts the hooks back. */
export function recoverFromTermination(): void {
  createHook({ init: () => undefined })
    .enable()
    .disable()
  tolerateTermination()
}

let wrap: Partial<AsyncWrap> | null = null

function asyncWrap(): Partial<AsyncWrap> {
  const { binding, noDeprecation = false } = process as unknown as {
    binding?(name: string): Partial<AsyncWrap>
    noDeprecation?: boolean
  }
  Object.assign(process, { noDeprecation: true })
  try {
    return binding?.call(process, 'async_wrap') ?? {}
  } finally {
    Object.assign(process, { noDeprecation })
  }
}
