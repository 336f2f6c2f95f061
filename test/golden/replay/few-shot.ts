// Replays of golden/dspy: Evaluate and the optimizers that only choose demos.
import { AdapterParseError, ArborError } from '../../../src/errors'
import { BootstrapFewShot, BootstrapRS, LabeledFewShot } from '../../../src/optimize'
import { context, Evaluate, type Example, fieldsOf, PythonRandom } from '../../../src/program'
import { type Difference, firstDifference, type GoldenCase, type Replay } from './case'
import {
  buildMetric,
  buildProgram,
  camelOptions,
  demosOf,
  examplesOf,
  type MetricDescription,
  type ProgramDescription,
} from './program'
import { type LMScript, ScriptedLM } from './scripted-lm'

type Row = Record<string, unknown>

interface Input {
  readonly program: ProgramDescription
  readonly trainset: readonly Row[]
  readonly valset?: readonly Row[]
  readonly devset?: readonly Row[]
  readonly input_keys: readonly string[]
  readonly lm_script: LMScript
  readonly metric: MetricDescription | null
  readonly options: Row
}

export const fewShotReplays: Record<string, Replay> = {
  evaluate: replayEvaluate,
  labeled_fewshot: replayLabeled,
  bootstrap_fewshot: replayBootstrap,
  random_search: replayRandomSearch,
}

async function replayEvaluate({ input, expected }: GoldenCase): Promise<Difference | null> {
  const { program, devset, input_keys, lm_script, metric, options } = input as Input
  const lm = new ScriptedLM(lm_script)
  const wanted = expected as { ok: boolean; lm_call_count: number; error?: Row }
  const evaluate = new Evaluate({
    devset: examplesOf(devset!, input_keys),
    metric: buildMetric(metric!),
    ...camelOptions(options),
  })
  try {
    const result = await context({ lm }, () => evaluate.call(buildProgram(program)))
    const columns = result.columns()
    const rows = result.table().map((row) => Object.fromEntries(columns.map((column) => [column, row[column] ?? null])))
    const results = result.results.map(({ example, prediction, score }) => ({
      example: fieldsOf(example),
      prediction: fieldsOf(prediction),
      score,
    }))
    const value = { score: result.score, results, repr: String(result), table: { columns, rows } }
    return firstDifference(expected, { ok: true, value, lm_call_count: lm.calls.length })
  } catch (error) {
    // Python's own words for these (division by zero, execution cancelled) say less than ours.
    if (wanted.ok || !(error instanceof ArborError)) throw error
    return firstDifference(wanted.lm_call_count, lm.calls.length, { path: 'lm_call_count' })
  }
}

async function replayLabeled({ input, expected }: GoldenCase): Promise<Difference | null> {
  const { program, trainset, input_keys, k, sample } = input as Input & { k: number; sample: boolean }
  const examples = examplesOf(trainset, input_keys)
  const compiled = await new LabeledFewShot({ k }).compile(buildProgram(program), { trainset: examples, sample })
  const indices = compiled
    .namedPredictors()
    .map(([name, { demos }]) => [name, demos.map((demo) => examples.indexOf(demo as Example))])
  return firstDifference(expected, { demos: demosOf(compiled), demo_indices: Object.fromEntries(indices) })
}

async function replayBootstrap({ input, expected }: GoldenCase): Promise<Difference | null> {
  const { program, trainset, input_keys, lm_script, metric, options } = input as Input
  const lm = new ScriptedLM(lm_script)
  const examples = examplesOf(trainset, input_keys)
  const student = buildProgram(program)
  const optimizer = new BootstrapFewShot({ metric: metric && buildMetric(metric), ...camelOptions(options) })
  const wanted = expected as { ok: boolean; error?: Row }
  const k = optimizer.options.maxLabeledDemos
  const teacher = k > 0 ? await new LabeledFewShot({ k }).compile(student, { trainset: examples }) : student
  try {
    const compiled = await context({ lm }, () => optimizer.compile(student, { trainset: examples }))
    const { bootstrapped, examples: tried, attempts, errors, rest } = optimizer.run!
    const { maxBootstrappedDemos, maxRounds } = optimizer.options
    const value = {
      demos: demosOf(compiled),
      compiled: compiled.compiled,
      teacher_demos_before_bootstrap: demosOf(teacher),
      unbootstrapped_in_shuffled_order: rest.map((example) => examples.indexOf(example)),
      shuffle_seed: 0,
      sample_seed: 0,
      error_count: errors.length,
    }
    // DSPy tells the index at which its loop stopped: the last one's when it ran through.
    const last = bootstrapped >= maxBootstrappedDemos && tried < examples.length ? tried : examples.length - 1
    const printed = `Bootstrapped ${bootstrapped} full traces after ${last} examples for up to ${maxRounds} rounds, amounting to ${attempts} attempts.`
    return firstDifference(expected, { ok: true, value, printed: [printed], lm_calls: lm.brief('n_messages') })
  } catch (error) {
    if (wanted.ok || !(error instanceof AdapterParseError)) throw error
    const { adapterName, raw, parsed, message } = error
    const failure = { class: 'AdapterParseError', adapter_name: adapterName, lm_response: raw, parsed_result: parsed, message }
    return firstDifference(expected, { ok: false, error: failure, printed: [], lm_calls: lm.brief('n_messages') })
  }
}

async function replayRandomSearch({ input, expected }: GoldenCase): Promise<Difference | null> {
  const { program, trainset, valset, input_keys, lm_script, metric, options } = input as Input
  const lm = new ScriptedLM(lm_script)
  const examples = examplesOf(trainset, input_keys)
  const optimizer = new BootstrapRS({ metric: buildMetric(metric!), ...camelOptions(options), numThreads: 1 })
  const sets = { trainset: examples, ...(valset ? { valset: examplesOf(valset, input_keys) } : {}) }
  const best = await context({ lm }, () => optimizer.compile(buildProgram(program), sets))
  const { seed_plan } = expected as { seed_plan: { seed: number }[] }
  return firstDifference(expected, {
    seed_plan: seed_plan.map(({ seed }) => seedPlan(seed, examples.length, options.max_bootstrapped_demos as number)),
    best_demos: demosOf(best),
    candidates_sorted: best.candidatePrograms.map(({ seed, score, subscores, program }) => ({
      seed,
      score,
      subscores,
      demos: demosOf(program),
    })),
    lm_call_count: lm.calls.length,
  })
}

function seedPlan(seed: number, count: number, most: number): Row {
  const indices = Array.from({ length: count }, (_, i) => i)
  new PythonRandom(seed).shuffle(indices)
  return { seed, shuffled_trainset_indices: indices, num_bootstrapped: new PythonRandom(seed).randint(1, most) }
}
