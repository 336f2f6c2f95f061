// The advisor's signature and its view of a program: for Refine, and for optimizers that ask a model for rules. Words and order are dspy's.

import { describeFields } from './field-text'
import type { Module } from './module'
import { dedent, splitLines } from './python-text'
import { Signature } from './signature'

const INSTRUCTIONS = `
    In the discussion, assign blame to each module that contributed to the final reward being below the threshold, if
    any. Then, prescribe concrete advice of how the module should act on its future input when we retry the process, if
    it were to receive the same or similar inputs. If a module is not to blame, the advice should be N/A.
    The module will not see its own history, so it needs to rely on entirely concrete and actionable advice from you
    to avoid the same mistake on the same or similar inputs.
    `

/** Inputs are text: values other than text go in as JSON over several lines. */
export const OFFER_FEEDBACK = new Signature({
  name: 'OfferFeedback',
  instructions: INSTRUCTIONS,
  inputs: {
    program_code: { type: 'str', desc: 'The code of the program that we are analyzing' },
    modules_defn: { type: 'str', desc: 'The definition of each module in the program, including its I/O' },
    program_inputs: { type: 'str', desc: 'The inputs to the program that we are analyzing' },
    program_trajectory: { type: 'str', desc: "The trajectory of the program's execution, showing each module's I/O" },
    program_outputs: { type: 'str', desc: 'The outputs of the program that we are analyzing' },
    reward_code: { type: 'str', desc: 'The code of the reward function that we are analyzing' },
    target_threshold: { type: 'float', desc: 'The target threshold for the reward function' },
    reward_value: { type: 'float', desc: "The reward value assigned to the program's outputs" },
    module_names: { type: 'list[str]', desc: 'The names of the modules in the program, for which we seek advice' },
  },
  outputs: {
    discussion: { type: 'str', desc: 'Discussing blame of where each module went wrong, if it did' },
    advice: {
      type: 'dict[str, str]',
      desc:
        'For each module, describe very concretely, in this order: the specific scenarios in which it has made ' +
        'mistakes in the past and what each mistake was, followed by what it should do differently in that kind of' +
        'scenario in the future. If the module is not to blame, write N/A.',
    },
  },
})

/** Every predictor of a program: its name, its fields, its instructions. */
export function describePredictors(program: Module): string {
  const line = '-'.repeat(80)
  const indented = (text: string) => splitLines(text).map((row) => `\t\t${row}`)
  const parts = program
    .namedPredictors()
    .flatMap(([name, { signature }]) => [
      `Module ${name}`,
      '\tInput Fields:',
      ...indented(describeFields(signature.inputFields)),
      '\tOutput Fields:',
      ...indented(describeFields(signature.outputFields)),
      '\tOriginal Instructions: ',
      ...indented(dedent(signature.instructions)),
      line,
    ])
  return [line, ...parts].join('\n')
}
