// Garbage collected when it suits us. Loading a model leaves buffers as large as its weights behind: Node would keep them until memory runs short. And
// what a step's rollouts leave is collected in the middle of the next ones, by a pause longer than a GPU's pass, unless it is collected before.

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

type Collect = (options?: { readonly type: 'major' | 'minor' }) => void

let found: Collect | null = null

/** Frees what nobody refers to any more, at once. */
export function collectGarbage(): void {
  collector()()
}

/** The same of what was made lately: a millisecond or two. */
export function collectYoungGarbage(): void {
  collector()({ type: 'minor' })
}

function collector(): Collect {
  if (found) return found
  setFlagsFromString('--expose-gc')
  return (found = runInNewContext('gc') as Collect)
}
