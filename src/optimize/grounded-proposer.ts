// The grounded proposer: a language model writes new instructions for each predictor, and is shown what the task is:
// a summary of the data, the program and what it does, worked examples, the instruction there is, and a tip.
// After DSPy's propose/grounded_proposer.py; the prompts are DSPy's.

import { AdapterParseError, ContextWindowExceededError } from '../errors'
import {
  type BaseLM,
  context,
  currentSettings,
  type Demo,
  type Example,
  type Module,
  Predict,
  type Predict as Predictor,
  type PythonRandom,
  Signature,
} from '../program'
import { summarizeDataset } from './dataset-summary'
import { exampleText, historyText, moduleText, programSource, type ScoredInstruction, stripPrefix } from './proposer-text'

/** A tip is drawn for each proposal; the empty one leaves the field out. */
export const TIPS: readonly string[] = [
  '',
  "Don't be afraid to be creative when creating the new instruction!",
  'Keep the instruction clear and concise.',
  'Make sure your instruction is very informative and descriptive.',
  'The instruction should include a high stakes scenario in which the LM must solve the task!',
  'Include a persona that is relevant to the task in the instruction (ie. "You are a ...")',
]

const NO_DEMOS = 'No task demos provided.'
const MOST_IN_HISTORY = 5

export interface ProposerOptions {
  readonly program: Module
  readonly trainset: readonly Example[]
  /** Writes the instructions. */
  readonly promptModel: BaseLM
  readonly random: PythonRandom
  /** Show the program and a description of it. */
  readonly programAware?: boolean
  /** Show a summary of the data. */
  readonly useDatasetSummary?: boolean
  /** Show worked examples. */
  readonly useTaskDemos?: boolean
  /** Draw a tip for each proposal. */
  readonly useTip?: boolean
  /** Past instructions of each predictor with their scores; shown where there are any. */
  readonly history?: readonly (readonly ScoredInstruction[])[]
  /** Examples in one batch of the summary. */
  readonly viewDataBatchSize?: number
  readonly numDemosInContext?: number
  readonly initTemperature?: number
  /** What the program is, in words or code; default: its source. */
  readonly programCode?: string
}

export interface ProposeOptions {
  /** [predictors][sets] of demos; null: none. */
  readonly demoSets: readonly (readonly (readonly Demo[])[])[] | null
  /** Instructions a predictor, at most one a demo set. */
  readonly count: number
  /** Told before each proposal: predictor and number. */
  readonly onProposal?: (predictor: number, index: number) => void
}

/** What a proposal is shown besides data and program; empty: nothing. */
interface Shown {
  readonly demos: string
  readonly tip: string
  readonly history: string
}

export class GroundedProposer {
  /** null: not asked for, or it couldn't be made. */
  dataSummary: string | null = null
  readonly programCode: string | null
  readonly #options: ProposerOptions

  private constructor(options: ProposerOptions) {
    this.#options = options
    this.programCode = (options.programAware ?? true) ? (options.programCode ?? programSource(options.program)) : null
  }

  /** Looks at the data first, which asks the prompt model. */
  static async create(options: ProposerOptions): Promise<GroundedProposer> {
    const proposer = new GroundedProposer(options)
    const { trainset, viewDataBatchSize = 10, promptModel } = options
    if (!(options.useDatasetSummary ?? true)) return proposer
    proposer.dataSummary = await orWarn('No dataset summary', () =>
      context({ lm: promptModel }, () => summarizeDataset(trainset, viewDataBatchSize)),
    )
    return proposer
  }

  /** [predictors][count] instructions; null where the model wrote none that can be read, with a warning. */
  async propose({ demoSets, count, onProposal }: ProposeOptions): Promise<(string | null)[][]> {
    const { program, random, useTip = true } = this.#options
    const sets = demoSets ? Math.max(demoSets[0]?.length ?? 0, 1) : count
    const proposed: (string | null)[][] = []
    for (const [i, predictor] of program.predictors().entries()) {
      const own: (string | null)[] = []
      for (let set = 0; set < Math.min(count, sets); set++) {
        onProposal?.(i, set)
        const tip = useTip ? random.choice(TIPS) : ''
        const history = historyText(this.#options.history?.[i] ?? [], MOST_IN_HISTORY)
        const shown = { demos: this.#demosText(predictor, demoSets?.[i], set), tip, history }
        own.push(await this.#instructionOrNull(predictor, shown))
      }
      proposed.push(own)
    }
    return proposed
  }

  /** Small models forget the format, or have no room for the prompt: then the search does with one proposal less. */
  async #instructionOrNull(predictor: Predictor, shown: Shown): Promise<string | null> {
    try {
      return await this.#instruction(predictor, shown)
    } catch (error) {
      if (!(error instanceof AdapterParseError || error instanceof ContextWindowExceededError)) throw error
      currentSettings().onWarning?.(`No instruction from the prompt model: ${firstLine(error)}`)
      return null
    }
  }

  /** A rollout id of its own keeps each proposal from being answered by a cache. */
  async #instruction(predictor: Predictor, shown: Shown): Promise<string> {
    const { promptModel: lm, random, initTemperature: temperature = 1 } = this.#options
    const lmOptions = { rolloutId: random.randint(0, 1e9), temperature }
    return context({ lm, lmOptions }, async () => {
      const program = this.programCode === null ? null : await this.#describe(this.programCode, predictor, shown.demos)
      const inputs: Record<string, string> = {
        ...(this.dataSummary === null ? {} : { dataset_description: this.dataSummary }),
        ...program,
        task_demos: shown.demos,
        ...(shown.history === '' ? {} : { previous_instructions: shown.history }),
        basic_instruction: predictor.signature.instructions,
        ...(shown.tip === '' ? {} : { tip: shown.tip }),
      }
      const answer = await new Predict(generateSignature(Object.keys(inputs))).call(inputs as never)
      return stripPrefix(stripPrefix(String(answer.get('proposed_instruction'))))
    })
  }

  /** What the program does and what the predictor is for, as the prompt model sees it. */
  async #describe(code: string, predictor: Predictor, example: string): Promise<Record<string, string>> {
    const known = {
      program_code: code,
      program_description: 'Not available',
      module: 'Not provided',
      module_description: 'Not provided',
    }
    await orWarn('No description of the program', async () => {
      const program = await new Predict(DESCRIBE_PROGRAM).call({ program_code: code, program_example: example } as never)
      known.program_description = stripPrefix(String(program.get('program_description')))
      known.module = moduleText(predictor)
      const { program_description, module } = known
      const inputs = { program_code: code, program_example: example, program_description, module }
      const described = await new Predict(DESCRIBE_MODULE).call(inputs as never)
      known.module_description = String(described.get('module_description'))
    })
    return known
  }

  /** Bootstrapped demos of this set and, where it has too few, of the next ones. The first set, which has none, is proposed for without. */
  #demosText(predictor: Predictor, sets: readonly (readonly Demo[])[] | undefined, set: number): string {
    if (!sets || set === 0 || !(this.#options.useTaskDemos ?? true)) return NO_DEMOS
    const demos = [...sets.slice(set), ...sets.slice(0, set)].flat().filter((demo) => 'augmented' in demo)
    const shown = demos.slice(0, this.#options.numDemosInContext ?? 3).map((demo) => exampleText(predictor.signature, demo))
    return shown.length === 0 ? NO_DEMOS : `${shown.join('\n\n')}\n\n`
  }
}

/** A proposal without this part is better than none. @throws the reason of an abort */
async function orWarn<T>(what: string, run: () => Promise<T>): Promise<T | null> {
  try {
    return await run()
  } catch (error) {
    const { signal, onWarning } = currentSettings()
    signal?.throwIfAborted()
    onWarning?.(`${what} from the prompt model: ${firstLine(error)}`)
    return null
  }
}

function firstLine(error: unknown): string {
  return String(error).split('\n')[0]!
}

const PROGRAM_CODE = { desc: 'Pseudocode for a language model program designed to solve a particular task.' }
const PROGRAM_EXAMPLE = { desc: 'An example of the program in use.' }
const PROGRAM_SUMMARY = { desc: 'Summary of the task the program is designed to solve, and how it goes about solving it.' }

const DESCRIBE_PROGRAM = new Signature(
  {
    name: 'DescribeProgram',
    inputs: { program_code: PROGRAM_CODE, program_example: PROGRAM_EXAMPLE },
    outputs: {
      program_description: {
        desc: 'Describe what task the program is designed to solve, and how it goes about solving this task.',
      },
    },
  },
  'Below is some pseudo-code for a pipeline that solves tasks with calls to language models. Please describe what type of task this program appears to be designed to solve, and how it appears to work.',
)

const DESCRIBE_MODULE = new Signature(
  {
    name: 'DescribeModule',
    inputs: {
      program_code: PROGRAM_CODE,
      program_example: PROGRAM_EXAMPLE,
      program_description: PROGRAM_SUMMARY,
      module: { desc: 'The module in the program that we want to describe.' },
    },
    outputs: { module_description: { desc: "Description of the module's role in the broader program." } },
  },
  'Below is some pseudo-code for a pipeline that solves tasks with calls to language models. Please describe the purpose of one of the specified module in this pipeline.',
)

const GENERATE_INPUTS: Readonly<Record<string, { readonly desc: string }>> = {
  dataset_description: { desc: 'A description of the dataset that we are using.' },
  program_code: { desc: 'Language model program designed to solve a particular task.' },
  program_description: PROGRAM_SUMMARY,
  module: { desc: 'The module to create an instruction for.' },
  module_description: { desc: 'Description of the module to create an instruction for.' },
  task_demos: { desc: 'Example inputs/outputs of our module.' },
  previous_instructions: { desc: "Previous instructions we've attempted, along with their associated scores." },
  basic_instruction: { desc: 'Basic instruction.' },
  tip: { desc: 'A suggestion for how to go about generating the new instruction.' },
}

/** The signature that asks for an instruction, with the inputs that are known. */
function generateSignature(names: readonly string[]): Signature {
  const inputs = Object.fromEntries(Object.entries(GENERATE_INPUTS).filter(([name]) => names.includes(name)))
  const outputs = {
    proposed_instruction: {
      desc: 'Propose an instruction that will be used to prompt a Language Model to perform this task.',
    },
  }
  return new Signature(
    { name: 'GenerateSingleModuleInstruction', inputs, outputs },
    'Use the information below to learn about a task that we are trying to solve using calls to an LM, then generate a new instruction that will be used to prompt a Language Model to better solve the task.',
  )
}
