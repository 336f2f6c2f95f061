// One run of a program with its score, as SIMBA compares them.

import { OptionError } from '../errors'
import {
  context,
  currentSettings,
  type Example,
  fieldsOf,
  type Loose,
  type Metric,
  type Module,
  type Prediction,
  scoreOf,
  type TraceEntry,
} from '../program'

/** What a predictor was asked and what it answered. */
export interface TracedCall {
  readonly name: string
  readonly inputs: Loose
  readonly outputs: Loose
}

export interface Trajectory {
  readonly example: Example
  /** null: the program failed. */
  readonly prediction: Prediction | null
  /** Calls of the program's own predictors that were answered. */
  readonly calls: readonly TracedCall[]
  /** 0 where the metric failed. */
  readonly score: number | boolean
  /** What else the metric returned beside the score. */
  readonly metadata: Loose
  /** What the program or the metric threw. */
  readonly error: Error | null
}

/** Runs the program once and scores it. A failing program is scored, too (the metric gets null), as in DSPy; a failing metric scores 0. */
export async function runTrajectory(program: Module, example: Example, metric: Metric): Promise<Trajectory> {
  const { signal, onWarning } = currentSettings()
  const trace: TraceEntry[] = []
  const run = await attempt(signal, () =>
    context({ trace }, async () => (await program.call(fieldsOf(example.inputs()) as never)) as Prediction),
  )
  const prediction = run.value ?? null
  const judged = await attempt(signal, async () => readOutput(await metric(example, prediction as never)))
  const error = run.error ?? judged.error
  if (error) onWarning?.(`SIMBA goes on after a run that failed: ${error.message}`)
  return { example, prediction, calls: namedCalls(program, trace), score: 0, metadata: {}, ...judged.value, error }
}

async function attempt<T>(signal: AbortSignal | null, run: () => Promise<T>): Promise<{ value?: T; error: Error | null }> {
  try {
    return { value: await run(), error: null }
  } catch (error) {
    signal?.throwIfAborted()
    return { error: error instanceof Error ? error : new Error(String(error)) }
  }
}

function namedCalls(program: Module, trace: readonly TraceEntry[]): TracedCall[] {
  const names = new Map(program.namedPredictors().map(([name, predictor]) => [predictor, name]))
  return trace.flatMap(({ predictor, inputs, prediction }) => {
    const name = names.get(predictor)
    return name !== undefined && prediction ? [{ name, inputs, outputs: fieldsOf(prediction) }] : []
  })
}

/** @throws OptionError for what is no number, boolean, or record with a score */
function readOutput(output: unknown): Pick<Trajectory, 'score' | 'metadata'> {
  if (typeof output !== 'object' || output === null) return { score: scoreOf(output), metadata: {} }
  const { score, ...metadata } = fieldsOf(output)
  if (score === undefined)
    throw new OptionError(`The metric returned ${JSON.stringify(output)} without a score; return a number or { score, … }.`)
  return { score: scoreOf(score), metadata }
}
