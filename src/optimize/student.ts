// What a program must be before its weights can be trained.

import { OptionError } from '../errors'
import { LM, type Module, settings } from '../program'
import { ArborProvider } from './arbor-provider'

export type TrainableLM = LM & { readonly apiBase: string }

/** The one LM behind the program, with the server it lives on, and the names of its predictors. */
export function checkStudent(student: Module): { lm: TrainableLM; predictors: string[] } {
  const named = student.namedPredictors()
  if (named.length === 0)
    throw new OptionError(
      'The program has no predictor: there is nothing to train. Make its predictors attributes of the module.',
    )
  const lms = new Set(named.map(([, predictor]) => predictor.lm ?? settings.lm))
  if (lms.size > 1)
    throw new OptionError(
      `The program's predictors use ${lms.size} different LMs; GRPO trains one. Call program.setLm(lm) first.`,
    )
  const [lm] = lms
  if (!lm) throw new OptionError('No LM: call dspy.configure({ lm }) with an LM on an Arbor server (arbor.startServer).')
  if (!(lm instanceof LM) || lm.apiBase === undefined || !(lm.provider instanceof ArborProvider))
    throw new OptionError(
      `The LM ${lm.model} can't be trained: it needs { provider: new arbor.ArborProvider(), apiBase: server.baseUrl }.`,
    )
  return { lm: lm as TrainableLM, predictors: named.map(([name]) => name) }
}
