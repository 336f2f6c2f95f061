// The question SIMBA asks of its prompt model: what set the better run apart from the worse one? Words and order are DSPy's
// (dspy/teleprompt/simba_utils.py), for the same prompt gives the same advice.

import { OptionError } from '../errors'
import { type Module, Signature } from '../program'
import { describeFields } from '../program/field-text'
import { dedent, splitLines } from '../program/python-text'
import type { Trajectory } from './simba-trajectory'

const TRAJECTORY = "The trajectory of the program's execution, showing each module's I/O"
const OUTPUTS = 'The outputs of the program that we are analyzing'
const REWARD = "The reward value assigned to the program's outputs"
const REWARD_INFO = 'Additional information that might be helpful to understanding the assigned reward value.'

export const OfferFeedback = new Signature(
  {
    name: 'OfferFeedback',
    inputs: {
      program_code: { type: 'str', desc: 'The code of the program that we are analyzing' },
      modules_defn: { type: 'str', desc: 'The definition of each module in the program, including its I/O' },
      program_inputs: { type: 'str', desc: 'The inputs to the program that we are analyzing' },
      oracle_metadata: { type: 'str', desc: "Any (hidden) metadata about the training set instance we're analyzing" },
      worse_program_trajectory: { type: 'str', desc: TRAJECTORY },
      worse_program_outputs: { type: 'str', desc: OUTPUTS },
      worse_reward_value: { type: 'float', desc: REWARD },
      worse_reward_info: { type: 'str', desc: REWARD_INFO },
      better_program_trajectory: { type: 'str', desc: TRAJECTORY },
      better_program_outputs: { type: 'str', desc: OUTPUTS },
      better_reward_value: { type: 'float', desc: REWARD },
      better_reward_info: { type: 'str', desc: REWARD_INFO },
      module_names: { type: 'list[str]', desc: 'The names of the modules in the program, for which we seek advice' },
    },
    outputs: {
      discussion: { type: 'str', desc: 'Discussing blame of where each module went wrong, if it did' },
      module_advice: {
        type: 'dict[str, str]',
        // biome-ignore lint/suspicious/noTemplateCurlyInString: the model is meant to see these braces
        desc: 'For each module, describe very concretely: If the module receives ${description of input or patterns therein}, then it should ${description of content, behavior, or strategies to adopt and/or others to avoid}. Basically, your advice be such that if the module has access to your tip, it would be much more likely to act like the successful trajectory rather than the lower-scoring trajectory.',
      },
    },
  },
  `
    You will be given two trajectories of an LLM-driven program's execution. Your goal is to help the program's modules
    build up experience on how to maximize the reward value assigned to the program's outputs if it were to receive
    similar inputs in the future.

    The module won't see its own history. It will rely on your advice balancing being concrete and being generalizable.

    In your advice:
    - Avoid boilerplate. Offer advice that would change the module's behavior for the better in the future.
    - Ensure that advice offered to a module M is specific to that M's specific sub-task, not the overall program.
    - Rely on contrasting the behavior of the worse trajectory against the better trajectory in making recommendations.
    - Ensure each unique module name appears exactly once as a key in the advice dictionary.
    `,
)

/** A trajectory as the question tells of it; null where there is nothing to compare with. */
export type Told = Pick<Trajectory, 'calls' | 'metadata'> & {
  readonly prediction: object | null
  readonly score: number | boolean | null
}

/** The inputs of `OfferFeedback`, all as text. @throws OptionError when the better run has no prediction to show */
export function feedbackInputs(program: Module, pair: { better: Trajectory; worse: Trajectory }): Record<string, string> {
  const { better, worse } = withoutTie(pair)
  if (better.prediction === null)
    throw new OptionError('The better of two runs has no prediction: the metric gave a failed run more than an answered one.')
  const { example } = pair.better
  const trajectory = ({ calls }: Told) => json(calls.map(({ name, ...io }) => ({ module_name: name, ...io })))
  return {
    program_code: program.constructor.toString(),
    modules_defn: describeModules(program),
    program_inputs: json(example.inputs()),
    oracle_metadata: json(example.labels()),
    better_program_trajectory: trajectory(better),
    better_program_outputs: json(better.prediction),
    worse_program_trajectory: trajectory(worse),
    worse_program_outputs: json(worse.prediction ?? {}),
    worse_reward_value: reward(worse),
    better_reward_value: reward(better),
    worse_reward_info: json(worse.metadata),
    better_reward_info: json(better.metadata),
    module_names: json(program.namedPredictors().map(([name]) => name)),
  }
}

const NOT_AVAILABLE = { calls: [], score: null, prediction: { 'N/A': 'Prediction not available' } }

/** Of two equal scores only one side is shown. SIMBA asks about pairs that are apart or in the middle, so it is the worse one. */
function withoutTie({ better, worse }: { better: Trajectory; worse: Trajectory }): { better: Told; worse: Told } {
  return Number(better.score) > Number(worse.score) ? { better, worse } : { better: { ...better, ...NOT_AVAILABLE }, worse }
}

function reward({ score }: Told): string {
  if (score === null) return 'N/A'
  return typeof score === 'number' && Number.isInteger(score) ? `${score}.0` : json(score)
}

/** JSON with an indent of two; what JSON can't hold is named. */
function json(value: unknown): string {
  const shown = (_key: string, item: unknown) =>
    ['function', 'bigint', 'symbol', 'undefined'].includes(typeof item) ? `<non-serializable: ${typeof item}>` : item
  return JSON.stringify(value, shown, 2)
}

/** Fields and instructions of every predictor. */
export function describeModules(program: Module): string {
  const rule = '-'.repeat(80)
  const indented = (lines: readonly string[]) => lines.map((line) => `\n\t\t${line}`).join('')
  const modules = program
    .namedPredictors()
    .flatMap(([name, { signature }]) => [
      `Module ${name}`,
      `\tInput Fields:`,
      trimBreaks(indented(splitLines(describeFields(signature.inputFields)))),
      `\tOutput Fields:`,
      trimBreaks(indented(splitLines(describeFields(signature.outputFields)))),
      `\tOriginal Instructions: ${trimEndBreaks(indented(splitLines(dedent(signature.instructions))))}`,
      rule,
    ])
  return [rule, ...modules].join('\n')
}

function trimBreaks(text: string): string {
  return trimEndBreaks(text.replace(/^\n+/, ''))
}

function trimEndBreaks(text: string): string {
  return text.replace(/\n+$/, '')
}
