// Node checks that every asynchronous callback leaves as it entered, and ends the process if one doesn't. A terminated loop never leaves,
// so in a kernel the check must be off. `--no-force-async-hooks-checks` does that until somebody uses an AsyncLocalStorage (Node 20 and 22
// build it on async hooks, which turn the check on again); the two counters behind it are reached through process.binding.

interface AsyncWrap {
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
