// LabeledFewShot: examples of the trainset as they are become the demos of every predictor. No model is called.
// After DSPy's teleprompt/vanilla.py.

import { type Example, type Module, PythonRandom } from '../program'
import { freshCopy } from './fresh-copy'

export interface LabeledFewShotOptions {
  /** Demos a predictor gets, at most. */
  readonly k?: number
}

export interface LabeledCompileOptions {
  readonly trainset: readonly Example[]
  /** false: the first k examples instead of k random ones. */
  readonly sample?: boolean
}

/**
 * Labelled examples as demos, as they are; asks no model.
 * @example const program = await new dspy.LabeledFewShot({ k: 4 }).compile(student, { trainset })
 */
export class LabeledFewShot {
  readonly k: number

  constructor({ k = 16 }: LabeledFewShotOptions = {}) {
    this.k = k
  }

  /** A copy with demos. One `random.Random(0)` goes on from predictor to predictor, so they get different examples. */
  async compile<P extends Module>(student: P, { trainset, sample = true }: LabeledCompileOptions): Promise<P> {
    const program = freshCopy(student)
    const random = new PythonRandom(0)
    const count = Math.min(this.k, trainset.length)
    for (const predictor of program.predictors())
      predictor.demos = sample ? random.sample(trainset, count) : trainset.slice(0, count)
    return program
  }
}
