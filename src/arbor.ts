// The names of `arbor.…`: training, and the runs that it leaves.

import { storagePath } from './optimize/launch'
import { type Run, type Runs, runIn, runsIn } from './runs/run'

export * from './optimize'
export { compareRuns, type Run, type RunPlotOptions, type Runs } from './runs/run'

/** All runs, the newest first: of the folder that `init` was given, else of $ARBOR_HOME, else of ~/.arbor. */
export function runs(options: { readonly storagePath?: string } = {}): Runs {
  return runsIn(storagePath(options))
}

/** One run by its id or a part of it; without a name the newest. @throws OptionError when it is none or several */
export function run(name = 'last', options: { readonly storagePath?: string } = {}): Run {
  return runIn(storagePath(options), name)
}
