// Replays of golden/dspy: MIPROv2's settings, its proposer, and whole runs.
import { type CandidateSearch, MIPROv2 } from '../../../src/optimize'
import { createDemoSets } from '../../../src/optimize/demo-sets'
import { GroundedProposer } from '../../../src/optimize/grounded-proposer'
import { type AutoMode, chooseRunSize, drawMinibatch, totalEvaluations } from '../../../src/optimize/mipro-settings'
import { stripPrefix } from '../../../src/optimize/proposer-text'
import { type Choices, type ParameterSampler, TPESampler } from '../../../src/optimize/tpe-sampler'
import {
  context,
  type Example,
  fieldsOf,
  type Metric,
  Module,
  Predict,
  type Prediction,
  PythonRandom,
} from '../../../src/program'
import { type Difference, firstDifference, type GoldenCase, type Replay } from './case'
import { buildMetric, camelOptions, demosOf, examplesOf, type MetricDescription } from './program'
import { type LMScript, ScriptedLM } from './scripted-lm'

type Row = Record<string, unknown>

export const miproReplays: Record<string, Replay> = {
  mipro_settings: replaySettings,
  mipro_propose: replayPropose,
  mipro_run: replayRun,
}

// ---------------------------------------------------------------- settings

interface SettingsInput {
  readonly auto: AutoMode
  readonly num_predictors: number
  readonly zeroshot: boolean
  /** 'integers A..B' */
  readonly trainset: string
  readonly valset: string | null
  readonly seed: number
}

function replaySettings({ input, expected }: GoldenCase): Difference | null {
  const given = input as SettingsInput & { texts?: string[]; batch_size?: number; n: number; calls: number }
  if (given.texts) return firstDifference(expected, { stripped: given.texts.map(stripPrefix) })
  const random = new PythonRandom(given.seed)
  const { batch_size } = given
  if (batch_size !== undefined) {
    const all = range(0, given.n - 1)
    const minibatches = Array.from({ length: given.calls }, () => drawMinibatch(all, batch_size, random))
    return firstDifference(expected, { minibatches })
  }
  const { auto, num_predictors: predictors, zeroshot: zeroShot } = given
  const given_sets = { trainset: integers(given.trainset)!, valset: integers(given.valset) }
  const size = chooseRunSize({ ...given_sets, predictors, zeroShot, auto, minibatch: true, random })
  const { numTrials, minibatch, numInstructions, numDemoSets, trainset, valset } = size
  return firstDifference(expected, {
    num_trials: numTrials,
    minibatch,
    num_instruct_candidates: numInstructions,
    num_fewshot_candidates: numDemoSets,
    train_used: ends(trainset),
    val_before_sampling: ends(given_sets.valset ?? given_sets.trainset.slice(trainset.length)),
    val_sampled_len: valset.length,
    val_sampled_first_20: valset.slice(0, 20),
    // DSPy counts the program as it came with minibatches only.
    adjusted_num_trials_default_full_eval_steps_5: totalEvaluations(size, 5) - (minibatch ? 0 : 1),
  })
}

function integers(text: string | null): number[] | undefined {
  if (text === null) return undefined
  const [first, last] = text.match(/\d+/g)!.map(Number) as [number, number]
  return range(first, last)
}

function range(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, i) => first + i)
}

function ends(numbers: readonly number[]): number[] {
  return [numbers[0]!, numbers.at(-1)!, numbers.length]
}

// ---------------------------------------------------------------- proposals and runs

/** The program of these cases (`program_class_source`). */
class OneWord extends Module {
  readonly qa = new Predict('question -> answer')
  forward({ question }: { question: string }): Promise<Prediction> {
    return this.qa.call({ question })
  }
}

interface RunInput {
  readonly trainset: readonly Row[]
  readonly valset: readonly Row[]
  readonly input_keys: readonly string[]
  readonly task_lm_script: LMScript
  readonly prompt_lm_script: LMScript
  readonly metric: MetricDescription
  readonly program_code_string: string
  readonly options: Row
}

interface ProposeInput extends RunInput {
  readonly rng_seed: number
  readonly num_fewshot_candidates: number
  readonly max_labeled_demos: number
  readonly max_bootstrapped_demos: number
  readonly view_data_batch_size: number
  readonly num_instructions: number
  readonly proposer_options: Row
}

async function replayPropose({ input, expected }: GoldenCase): Promise<Difference | null> {
  const given = input as ProposeInput
  const taskModel = new ScriptedLM(given.task_lm_script)
  const promptModel = new ScriptedLM(given.prompt_lm_script)
  const program = new OneWord()
  const trainset = examplesOf(given.trainset, given.input_keys)
  const random = new PythonRandom(given.rng_seed)
  const bootstrap = {
    metric: buildMetric(given.metric),
    maxLabeledDemos: given.max_labeled_demos,
    maxBootstrappedDemos: given.max_bootstrapped_demos,
  }
  const count = given.num_fewshot_candidates
  const demoSets = await context({ lm: taskModel }, () => createDemoSets(program, { trainset, count, random, bootstrap }))
  const { value } = expected as { value: { program_code_string: string | null } }
  const proposer = await GroundedProposer.create({
    ...{ program, trainset, promptModel, random, viewDataBatchSize: given.view_data_batch_size },
    ...camelOptions(given.proposer_options),
    programCode: value.program_code_string ?? undefined,
  })
  const proposed = await proposer.propose({ demoSets, count: given.num_instructions })
  return firstDifference(expected, {
    ok: true,
    value: {
      demo_candidates: { ...demoSets.map((sets) => sets.map((demos) => demos.map((demo) => fieldsOf(demo)))) },
      proposed: { ...proposed },
      data_summary: proposer.dataSummary,
      program_code_string: proposer.programCode,
    },
    task_lm_call_count: taskModel.calls.length,
    prompt_lm_calls: promptModel.calls,
  })
}

/** Runs with our own sampler: it has to come to Optuna's suggestions by itself. */
async function replayRun({ input, expected }: GoldenCase): Promise<Difference | null> {
  const { seed, num_trials, minibatch, minibatch_size, minibatch_full_eval_steps, view_data_batch_size, ...rest } = (
    input as RunInput
  ).options
  const given = input as RunInput
  const promptModel = new ScriptedLM(given.prompt_lm_script)
  const taskModel = new ScriptedLM(given.task_lm_script)
  const valset = examplesOf(given.valset, given.input_keys)
  const log = new RunLog(valset)
  const optimizer = new MIPROv2({
    ...{ metric: log.watch(buildMetric(given.metric)), promptModel, taskModel, seed: seed as number, numThreads: 1 },
    ...camelOptions(rest),
  })
  const best = await optimizer.compile(new OneWord(), {
    ...camelOptions({ num_trials, minibatch, minibatch_size, minibatch_full_eval_steps, view_data_batch_size }),
    trainset: examplesOf(given.trainset, given.input_keys),
    valset,
    programCode: given.program_code_string,
    sampler: log.listen(new TPESampler(seed as number)),
  })
  const brief = (programs: typeof best.candidatePrograms) =>
    programs.map(({ score, program }) => ({ score, instructions: instructionsOf(program) }))
  const value = {
    score: best.score,
    instructions: instructionsOf(best),
    demos: demosOf(best),
    candidate_programs: brief(best.candidatePrograms),
    mb_candidate_programs: brief(best.mbCandidatePrograms),
    trial_logs: Object.fromEntries(Object.entries(best.trialLogs).map(([trial, entry]) => [trial, loggedAs(entry)])),
  }
  return firstDifference(expected, {
    ok: true,
    value,
    events: log.events(optimizer.search!, minibatch_size as number),
    task_lm_call_count: taskModel.calls.length,
    prompt_lm_calls: promptModel.brief('response'),
  })
}

function instructionsOf(program: Module): string[] {
  return program.predictors().map(({ signature }) => signature.instructions)
}

const LOG_NAMES: Record<string, string> = {
  fullEvalScore: 'full_eval_score',
  mbScore: 'mb_score',
  totalEvalCallsSoFar: 'total_eval_calls_so_far',
}

/** A trial's log without the programs. */
function loggedAs(entry: Readonly<Record<string, unknown>>): Row {
  const told = Object.entries(entry).filter(([key]) => !key.endsWith('Program'))
  return Object.fromEntries(told.map(([key, value]) => [LOG_NAMES[key] ?? key, value]))
}

/** What happened in a run: which validation examples were judged, and what was suggested in between. */
class RunLog {
  readonly #entries: (number | Choices)[] = []

  constructor(readonly valset: readonly Example[]) {}

  watch(metric: Metric): Metric {
    return (example, prediction, trace) => {
      const index = this.valset.indexOf(example as Example)
      if (index !== -1) this.#entries.push(index)
      return metric(example, prediction, trace)
    }
  }

  listen(sampler: ParameterSampler): ParameterSampler {
    return {
      tell: (choices, score) => sampler.tell(choices, score),
      suggest: (space) => {
        const choices = sampler.suggest(space)
        this.#entries.push(choices)
        return choices
      },
    }
  }

  /** The vectors' events; the candidates tell how long each evaluation was, the trial logs which numbers the suggestions have. */
  events({ candidates, trialLogs }: CandidateSearch<Module>, minibatchSize: number): Row[] {
    const trials = Object.entries(trialLogs).filter(([, entry]) => '0_predictor_instruction' in entry)
    const numbers = trials.map(([trial]) => Number(trial))
    return candidates.flatMap((candidate) => {
      const suggested: Row[] = []
      while (typeof this.#entries[0] === 'object')
        suggested.push({ event: 'suggest', trial: numbers.shift(), params: this.#entries.shift() })
      const batch_size = candidate.full ? this.valset.length : minibatchSize
      const val_indices = this.#entries.splice(0, batch_size)
      const { score, program } = candidate
      const evaluated = { batch_size, valset_size: this.valset.length, val_indices, score, instructions: instructionsOf(program) }
      return [...suggested, { event: 'evaluate', ...evaluated }]
    })
  }
}
