// Replays of golden/dspy: SIMBA, GEPA and BetterTogether.
import { OptionError } from '../../../src/errors'
import { BetterTogether, GEPA, type GEPAOptions, type Optimizer, SIMBA } from '../../../src/optimize'
import { autoBudget } from '../../../src/optimize/gepa-options'
import type { SimbaBucketLog } from '../../../src/optimize/simba-run'
import { context, type Example, fieldsOf, Module, Predict } from '../../../src/program'
import { pyFloat } from '../../../src/program/python-text'
import { type Difference, firstDifference, firstOf, type GoldenCase, type Replay } from './case'
import { readSignature, type SignatureDescription } from './dspy'
import { buildMetric, camelOptions, demosOf, examplesOf, type MetricDescription } from './program'
import { type LMScript, ScriptedLM } from './scripted-lm'

type Row = Record<string, unknown>

interface Input {
  readonly program_class_source: string
  readonly predictors: readonly { readonly name: string; readonly signature: SignatureDescription }[]
  readonly trainset: readonly Row[]
  readonly valset?: readonly Row[]
  readonly input_keys: readonly string[]
  readonly task_lm_script: LMScript
  readonly options: Row
}

export const promptSearchReplays: Record<string, Replay> = {
  gepa_budget: replayBudget,
  gepa_run: replayGepa,
  simba_run: replaySimba,
  better_together: replayBetterTogether,
}

/** The vectors' class: predictors under attributes, called in order with what is known by then. Its source is the Python that SIMBA shows. */
function buildOneWord({ program_class_source, predictors }: Pick<Input, 'program_class_source' | 'predictors'>): Module {
  class OneWord extends Module {
    [name: string]: unknown
    override async forward(inputs: Row): Promise<unknown> {
      const known = { ...inputs }
      let last: unknown
      for (const { name, signature } of predictors) {
        const given = Object.fromEntries(signature.inputs.map((field) => [field.name, known[field.name]]))
        last = await (this[name] as Predict).call(given as never)
        Object.assign(known, fieldsOf(last as object))
      }
      return last
    }
    static override toString(): string {
      return program_class_source
    }
  }
  const program = new OneWord()
  for (const { name, signature } of predictors) program[name] = new Predict(readSignature(signature))
  return program
}

function instructionsOf(program: Module): Record<string, string> {
  return Object.fromEntries(program.namedPredictors().map(([name, { signature }]) => [name, signature.instructions]))
}

function replayBudget({ input, expected }: GoldenCase): Difference | null {
  const { cases, auto_run_settings } = input as {
    cases: { auto: string; num_predictors: number; valset_size: number }[]
    auto_run_settings: Record<string, { n: number }>
  }
  const budgets = cases.map(({ auto, num_predictors, valset_size }) =>
    autoBudget({ predictors: num_predictors, candidates: auto_run_settings[auto]!.n, valset: valset_size }),
  )
  return firstDifference(expected, { max_metric_calls: budgets })
}

async function replayGepa({ input, expected }: GoldenCase): Promise<Difference | null> {
  const given = input as Input & { reflection_lm_script: LMScript }
  const lm = new ScriptedLM(given.task_lm_script)
  const reflectionLm = new ScriptedLM(given.reflection_lm_script)
  const calls: Row[] = []
  const metric: GEPAOptions['metric'] = (example, prediction, _trace, predName) => {
    const score = example.answer === prediction.answer ? 1 : 0
    calls.push({ example: Number(/\d+/.exec(example.question)![0]), pred_name: predName ?? null, score })
    return { score, feedback: `expected ${example.answer}, got ${prediction.answer}` }
  }
  const gepa = new GEPA({ metric, reflectionLm, ...camelOptions(given.options) })
  const [trainset, valset] = [given.trainset, given.valset].map((rows) => rows && examplesOf(rows, given.input_keys))
  const best = await context({ lm }, () =>
    gepa.compile(buildOneWord(given), { trainset: trainset!, ...(valset ? { valset } : {}) }),
  )
  const found = best.detailedResults
  const value = {
    instructions: instructionsOf(best),
    candidates: found.candidates.map(instructionsOf),
    parents: found.parents,
    val_aggregate_scores: found.valAggregateScores,
    val_subscores: found.valSubscores.map((scores) => ({ ...scores })),
    total_metric_calls: found.totalMetricCalls,
    num_full_val_evals: found.numFullValEvals,
  }
  return firstDifference(expected, {
    ok: true,
    value,
    metric_calls: calls,
    reflection_lm_calls: reflectionLm.calls,
    task_lm_call_count: lm.calls.length,
  })
}

// ---------------------------------------------------------------- SIMBA

interface SimbaStepLog {
  readonly baseline: number
  readonly buckets: readonly SimbaBucketLog[]
  readonly scores: readonly number[]
  readonly trainScore?: number
}

async function replaySimba({ input, expected }: GoldenCase): Promise<Difference | null> {
  const given = input as Input & { prompt_lm_script: LMScript; metric: MetricDescription }
  const lm = new ScriptedLM(given.task_lm_script)
  const promptModel = new ScriptedLM(given.prompt_lm_script)
  const { seed, ...options } = given.options
  const simba = new SIMBA({ metric: buildMetric(given.metric), promptModel, ...camelOptions(options) })
  const trainset = examplesOf(given.trainset, given.input_keys)
  const best = await context({ lm }, () => simba.compile(buildOneWord(given), { trainset, seed: seed as number }))
  const steps = best.trialLogs as unknown as Record<string, SimbaStepLog>
  const candidates = best.candidatePrograms.map(({ program, subscores }) => ({ ...stateOf(program), score: meanOf(subscores!) }))
  const trials = Object.entries(steps).map(([step, { trainScore }]) => [
    step,
    trainScore === undefined ? {} : { train_score: trainScore },
  ])
  const finalists = simba.search!.candidates.filter(({ full }) => full).map(({ subscores }) => meanOf(subscores!))
  return firstDifference(expected, {
    ok: true,
    value: { ...stateOf(best), trial_logs: Object.fromEntries(trials), candidates },
    log: simbaLog(Object.values(steps), finalists, simba),
    task_lm_calls: lm.brief('response'),
    prompt_lm_calls: promptModel.calls,
  })
}

function stateOf(program: Module): Row {
  return { instructions: instructionsOf(program), demos: demosOf(program) }
}

function meanOf(scores: readonly (number | boolean)[]): number {
  return scores.reduce<number>((sum, score) => sum + Number(score), 0) / scores.length
}

/** What DSPy logs in the course of such a run. */
function simbaLog(steps: readonly SimbaStepLog[], finalists: readonly number[], { options }: SIMBA): string[] {
  const { bsize, numCandidates } = options
  const perStep = steps.flatMap(({ baseline, buckets, scores }, i) => [
    `Starting batch ${i + 1} of ${options.maxSteps}.`,
    `Sampling program trajectories on ${bsize} examples x ${numCandidates} samples.`,
    `Batch ${i + 1}: Baseline mini-batch score: ${pyFloat(baseline)}`,
    ...buckets.flatMap((bucket, k) => bucketLog(bucket, `Batch ${i + 1}:`, k + 1)),
    `Batch ${i + 1}: Evaluating ${scores.length} programs on ${bsize} examples.`,
    `Scores after ${i + 1} batches: ${listOf(scores)}, Best: ${scores.length > 0 ? pyFloat(Math.max(...scores)) : 'N/A'}`,
  ])
  const best = Math.max(...finalists)
  return [
    ...perStep,
    `VALIDATION: Evaluating ${finalists.length} programs on the full trainset.`,
    `Final trainset scores: ${listOf(finalists)}, Best: ${pyFloat(best)} (at index ${finalists.indexOf(best)})`,
  ]
}

function bucketLog(bucket: SimbaBucketLog, batch: string, number: number): string[] {
  const { maxScore, minScore, maxToMinGap, maxToAvgGap, strategy, dropped, outcome } = bucket
  const stats = `max score ${pyFloat(maxScore)}, max-to-min gap ${pyFloat(maxToMinGap)}, and max-to-avg gap ${pyFloat(maxToAvgGap)}`
  const name = strategy === 'append_a_demo' ? 'append_a_demo_' : strategy
  const drops = dropped > 0 ? `, having dropped ${dropped} demos per predictor` : ''
  const head = [`${batch} Processing bucket #${number}, with ${stats}.`, `${batch} Invoking strategy: ${name}${drops}`]
  if ('failed' in outcome) return [...head, `Strategy failed with error: ${outcome.failed}`]
  if ('added' in outcome) return [...head, `Added ${outcome.added} demos (one each) across all predictors.`, '']
  if ('advice' in outcome)
    return [...head, ...Object.entries(outcome.advice).map(([of, text]) => `Advice for ${of}: ${text}`), '']
  const low = `good score ${pyFloat(maxScore)} is at or below the 10th percentile`
  if (strategy === 'append_a_demo') return [...head, `Skipping appending a demo as ${low}.`, '']
  return [
    ...head,
    `Skipping rule generation as ${low} *or* bad score ${pyFloat(minScore)} is at or above the 90th percentile.`,
    '',
  ]
}

function listOf(values: readonly number[]): string {
  return `[${values.map(pyFloat).join(', ')}]`
}

// ---------------------------------------------------------------- BetterTogether

interface TogetherInput extends Omit<Input, 'task_lm_script'> {
  readonly lm_script: LMScript
  readonly metric: MetricDescription
  /** By name, what the optimizer does in words; beside them `compile_parameters`. */
  readonly optimizers: Readonly<Record<string, string>>
}

async function replayBetterTogether({ input, expected }: GoldenCase): Promise<Difference | null> {
  const given = input as TogetherInput
  const wanted = expected as Row & { ok: boolean; error?: { class: string; message: string } }
  const lm = new ScriptedLM(given.lm_script)
  const calls: Row[] = []
  const trainset = examplesOf(given.trainset, given.input_keys)
  const together = new BetterTogether({ metric: buildMetric(given.metric), optimizers: toyOptimizers(given, trainset, calls) })
  const student = buildOneWord(given)
  const observed = () => ({ optimizer_calls: calls, lm_call_count: lm.calls.length })
  try {
    const options = togetherOptions(given.options)
    const best = await context({ lm }, () => together.compile(student, { trainset, ...options }))
    const value = {
      instructions: Object.values(instructionsOf(best)),
      compiled: best.compiled,
      error_flag: best.flagCompilationErrorOccurred,
      candidates: best.candidatePrograms.map(({ strategy, score, program }) => {
        return { strategy, score, instructions: Object.values(instructionsOf(program)) }
      }),
    }
    return firstDifference(expected, { ok: true, value, ...observed() })
  } catch (error) {
    if (wanted.ok || !(error instanceof OptionError)) throw error
    const { ok: _, error: failure, ...rest } = wanted
    return sameFacts(failure!, error) ?? firstDifference(rest, observed())
  }
}

/** Our words say what to write in TypeScript; what DSPy's message quotes is in them, too. */
function sameFacts(expected: { class: string; message: string }, error: OptionError): Difference | null {
  if (expected.class !== 'ValueError') return { path: 'error.class', expected: expected.class, got: error.name }
  const facts = [...expected.message.matchAll(/'([^']+)'/g)]
    .map(([, fact]) => fact!)
    .filter((fact) => !fact.includes('optimizer_compile_args'))
  return firstOf(facts, (fact) =>
    error.message.includes(`'${fact}'`) || fact === 'student'
      ? null
      : { path: 'error.message', expected: fact, got: error.message },
  )
}

/** An optimizer writes down its call and puts ' +name<call number>' behind the instructions, or it fails. */
function toyOptimizers(given: TogetherInput, examples: readonly Example[], calls: Row[]): Record<string, Optimizer> {
  const { compile_parameters, ...deeds } = given.optimizers as unknown as Record<string, string> & {
    compile_parameters: readonly string[]
  }
  const indices = (rows?: readonly Example[]) => rows?.map((row) => examples.indexOf(row)) ?? null
  const toy = (name: string, deed: string): Optimizer => {
    let count = 0
    return {
      compileParameters: compile_parameters,
      compile: async (student, options: { trainset: readonly Example[]; valset?: readonly Example[]; num_trials?: number }) => {
        calls.push({
          optimizer: name,
          student_instructions: Object.values(instructionsOf(student)),
          student_compiled_flag: student.compiled,
          trainset_indices: indices(options.trainset),
          valset_indices: indices(options.valset),
          num_trials: options.num_trials ?? null,
        })
        const failure = /^raises \w+\('(.*)'\)$/.exec(deed)
        if (failure) throw new Error(failure[1])
        count++
        for (const predictor of student.predictors())
          predictor.signature = predictor.signature.withInstructions(`${predictor.signature.instructions} +${name}${count}`)
        return student
      },
    }
  }
  return Object.fromEntries(Object.entries(deeds).map(([name, deed]) => [name, toy(name, deed)]))
}

/** Names of optimizers, and what an optimizer takes, keep their spelling. */
function togetherOptions({ optimizer_compile_args, ...options }: Row): Row {
  return { ...camelOptions(options), ...(optimizer_compile_args ? { optimizerCompileArgs: optimizer_compile_args } : {}) }
}
