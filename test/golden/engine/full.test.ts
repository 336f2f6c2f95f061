import { describeFullTraining } from './describe-full'
import { describeEachBackend } from './each-backend'

// Weights that are trained are f32 at every precision; against a base that is rounded there is nothing to compare.
describeEachBackend((name, open, precision) => {
  if (precision === 'f32') describeFullTraining(name, open)
})
