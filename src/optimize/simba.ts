// SIMBA: runs minibatches several times over, looks where the same example went well and badly, and grows new programs out of the difference,
// by a demo or by a rule. Follows dspy/teleprompt/simba.py, numpy's draws included.

import { OptionError } from '../errors'
import type { Module } from '../program'
import { CandidateSearch, checkTrainset, type Optimized } from './candidates'
import { checkSimbaOptions, type SIMBACompileOptions, type SIMBAOptions, type SimbaSettings } from './simba-options'
import { SimbaRun } from './simba-run'

/**
 * @example
 * const simba = new dspy.SIMBA({ metric, maxSteps: 4, bsize: 8 })
 * const better = await simba.compile(program, { trainset })
 */
export class SIMBA {
  readonly options: SimbaSettings
  /** What `compile` takes besides the student. */
  readonly compileParameters = ['trainset', 'signal', 'seed'] as const
  /** The search of the last compile, with every candidate; also after an error. */
  search: CandidateSearch<Module> | null = null

  /** @throws OptionError for an option that is missing, unknown or can't be meant */
  constructor(options: SIMBAOptions) {
    this.options = checkSimbaOptions(options)
  }

  /**
   * Searches for `maxSteps` steps, then scores the winners of the steps on the whole trainset and answers the best. The student stays as it
   * was. An interrupt ends with the best program so far.
   * @throws OptionError for a trainset smaller than a minibatch, or several language models in the program
   */
  async compile<P extends Module>(student: P, options: SIMBACompileOptions<P>): Promise<Optimized<P>> {
    checkTrainset(options.trainset, 'SIMBA')
    const { bsize } = this.options
    if (options.trainset.length < bsize)
      throw new OptionError(
        `The trainset has ${options.trainset.length} examples, fewer than a minibatch (bsize ${bsize}). Give more, or a smaller bsize.`,
      )
    const search = new CandidateSearch<P>({ title: 'SIMBA', ...(options.signal ? { signal: options.signal } : {}) })
    this.search = search as unknown as CandidateSearch<Module>
    return search.run(() => new SimbaRun(this.options, student, { ...options, search }).run())
  }
}
