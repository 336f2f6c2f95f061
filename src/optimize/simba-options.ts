// The options of SIMBA, DSPy's names in camelCase, checked once at the door.

import { nearestName, OptionError } from '../errors'
import type { BaseLM, Metric, Module } from '../program'
import type { PromptCompileOptions } from './candidates'

export interface SIMBAOptions {
  /** (example, prediction) → a number or boolean, or a record with a `score`; what stands beside it is shown to the prompt model. */
  readonly metric: Metric
  /** Examples of a minibatch; the trainset needs at least as many. Default 32. */
  readonly bsize?: number
  /** Runs of each example of a minibatch, and new programs a step (one more at most). Default 6. */
  readonly numCandidates?: number
  /** Default 8. */
  readonly maxSteps?: number
  /** Demos a predictor may hold before some are dropped; 0: rules only. Default 4. */
  readonly maxDemos?: number
  /** Writes the rules. Default: the configured one. */
  readonly promptModel?: BaseLM | null
  /** `lm`: makes the first of the runs of each example. */
  readonly teacherSettings?: { readonly lm?: BaseLM } | null
  /** Longest input of a demo, in characters; 0: no limit. Default 100 000. */
  readonly demoInputFieldMaxlen?: number
  readonly numThreads?: number | null
  /** How evenly the programs to run are drawn; the higher the more evenly. Default 0.2. */
  readonly temperatureForSampling?: number
  /** The same for the programs to grow new ones from. Default 0.2. */
  readonly temperatureForCandidates?: number
}

export interface SIMBACompileOptions<P extends Module = Module> extends Omit<PromptCompileOptions<P>, 'valset' | 'teacher'> {
  /** Default 0. */
  readonly seed?: number
}

const DEFAULTS = {
  bsize: 32,
  numCandidates: 6,
  maxSteps: 8,
  maxDemos: 4,
  promptModel: null,
  teacherSettings: null,
  demoInputFieldMaxlen: 100_000,
  numThreads: null,
  temperatureForSampling: 0.2,
  temperatureForCandidates: 0.2,
} as const

export type SimbaSettings = Required<SIMBAOptions>

/** @throws OptionError for an option that is missing, unknown or can't be meant */
export function checkSimbaOptions(options: SIMBAOptions): SimbaSettings {
  const known = ['metric', ...Object.keys(DEFAULTS)]
  for (const key of Object.keys(options))
    if (!known.includes(key)) {
      const near = nearestName(key, known)
      throw new OptionError(`SIMBA has no option "${key}".${near ? ` Did you mean "${near}"?` : ''}`)
    }
  if (typeof options.metric !== 'function')
    throw new OptionError(
      `SIMBA needs a metric: a function (example, prediction) → number or boolean; got ${String(options.metric)}.`,
    )
  const least = { bsize: 1, numCandidates: 1, maxSteps: 1, maxDemos: 0, demoInputFieldMaxlen: 0, numThreads: 1 } as const
  for (const [key, from] of Object.entries(least) as [keyof typeof least, number][]) {
    const value = options[key] ?? DEFAULTS[key] ?? from
    if (!(Number.isInteger(value) && value >= from))
      throw new OptionError(`${key} is ${String(value)}; a whole number of at least ${from} is needed.`)
  }
  for (const key of ['temperatureForSampling', 'temperatureForCandidates'] as const)
    if (!((options[key] ?? DEFAULTS[key]) > 0)) throw new OptionError(`${key} is ${options[key]}; a number above 0 is needed.`)
  return { ...DEFAULTS, ...options }
}
