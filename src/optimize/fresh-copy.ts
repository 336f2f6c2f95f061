// The program an optimizer starts from.

import type { Module } from '../program'

/** A copy without demos. Each predictor keeps its language model, which DSPy's reset_copy drops without a word. */
export function freshCopy<P extends Module>(program: P): P {
  const copy = program.resetCopy()
  const given = program.predictors()
  for (const [i, predictor] of copy.predictors().entries()) predictor.lm = given[i]!.lm
  return copy
}
