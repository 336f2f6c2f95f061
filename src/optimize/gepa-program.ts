// The program as GEPA works on it: built from instructions, scored, run with its trace, and shown to the reflection model.
// Follows dspy/teleprompt/gepa/gepa_utils.py.

import { AdapterParseError, OptionError } from '../errors'
import {
  ChatAdapter,
  context,
  currentSettings,
  Evaluate,
  type Example,
  fieldsOf,
  type Loose,
  type Module,
  type Predict,
  type Prediction,
  type PythonRandom,
  scoreOf,
  type TraceEntry,
} from '../program'
import { pyFloat, pyRepr, pyStr } from '../program/python-text'
import { checkNotAllFailed } from './all-failed'
import type { BatchScores, Texts } from './gepa-pool'
import type { ReflectiveExample } from './gepa-proposal'
import { limited } from './limited'

/** A score, and what to tell the reflection model about it. Without feedback GEPA says the score. */
export interface ScoreWithFeedback {
  readonly score: number | boolean
  readonly feedback?: string | null
}

type GepaScore = number | boolean | Prediction | ScoreWithFeedback

/**
 * Scores a prediction, `(example, prediction)`; asked for feedback on one predictor it also gets the program's trace, that predictor's name and
 * the entry of the trace in question. Both times the score should be the whole program's.
 * @example
 * const metric = (example, prediction) => ({ score: example.answer === prediction.answer, feedback: `The answer is ${example.answer}.` })
 */
export type GepaMetric = (
  example: Loose,
  prediction: Loose,
  trace?: readonly TraceEntry[],
  predName?: string,
  predTrace?: readonly TraceEntry[],
) => GepaScore | Promise<GepaScore>

/** One run of the program that came to a score. */
export interface Trajectory {
  readonly example: Example
  /** null: the program's answer could not be read. */
  readonly prediction: Prediction | null
  readonly failure: AdapterParseError | null
  readonly calls: readonly { readonly name: string; readonly entry: TraceEntry }[]
  readonly score: number
}

export interface GepaProgramOptions {
  readonly metric: GepaMetric
  readonly failureScore: number
  readonly numThreads: number | undefined
  readonly addFormatFailureAsFeedback: boolean
  readonly warnOnScoreMismatch: boolean
  /** Draws the call to show where a predictor was called several times. */
  readonly random: PythonRandom
}

export class GepaProgram<P extends Module> {
  #warnedOfMismatch = false

  constructor(
    readonly student: P,
    readonly options: GepaProgramOptions,
  ) {}

  /** The student's own instructions. */
  get texts(): Texts {
    return Object.fromEntries(this.student.namedPredictors().map(([name, predictor]) => [name, predictor.signature.instructions]))
  }

  build(texts: Texts): P {
    const program = this.student.deepcopy()
    for (const [name, predictor] of program.namedPredictors())
      if (texts[name] !== undefined) predictor.signature = predictor.signature.withInstructions(texts[name])
    return program
  }

  /** Scores on every example; an example that fails has `failureScore`. @throws ArborError when all of them fail, but for unreadable answers */
  async score(program: P, examples: readonly Example[]): Promise<BatchScores> {
    const { metric, failureScore, numThreads } = this.options
    const evaluate = new Evaluate({
      devset: examples,
      metric: async (example, prediction) => readScore(await metric(example, prediction)).score,
      maxErrors: examples.length + 1,
      failureScore,
      ...(numThreads === undefined ? {} : { numThreads }),
    })
    const { results } = await evaluate.call(program)
    checkNotAllFailed(results.map(({ cause = null }) => cause))
    return { scores: results.map(({ score }) => Number(score)), outputs: results.map(({ prediction }) => prediction) }
  }

  /** Runs the program on a minibatch. An answer that can't be read scores `failureScore`; a run that throws is left out, as in DSPy. */
  async rollOut(program: P, examples: readonly Example[]): Promise<Trajectory[]> {
    const threads = this.options.numThreads ?? currentSettings().numThreads
    const runs = await limited(examples, threads, (example) => this.#rollOutOne(program, example))
    return runs.flatMap((run) => run ?? [])
  }

  async #rollOutOne(program: P, example: Example): Promise<Trajectory | null> {
    const trace: TraceEntry[] = []
    const { signal, onWarning } = currentSettings()
    try {
      const { prediction, failure } = await runProgram(program, example, trace)
      const score = prediction ? readScore(await this.options.metric(example, prediction)).score : this.options.failureScore
      return { example, prediction, failure, calls: namedCalls(program, trace, failure), score }
    } catch (error) {
      signal?.throwIfAborted()
      onWarning?.(`GEPA leaves out a run that failed: ${error instanceof Error ? error.message : String(error)}`)
      return null
    }
  }

  /**
   * What the runs show about each predictor. Predictors without a usable run are left out.
   * @throws OptionError when none has one; what the metric throws
   */
  async reflect(
    trajectories: readonly Trajectory[],
    components: readonly string[],
  ): Promise<Record<string, ReflectiveExample[]>> {
    const dataset: Record<string, ReflectiveExample[]> = {}
    for (const name of components) {
      const examples: ReflectiveExample[] = []
      for (const trajectory of trajectories) {
        const entry = this.#callToShow(trajectory, name)
        if (entry) examples.push(await this.#describe(trajectory, name, entry))
      }
      if (examples.length > 0) dataset[name] = examples
    }
    if (Object.keys(dataset).length === 0)
      throw new OptionError(`No run has a readable answer of ${components.join(', ')}: there is nothing to reflect on.`)
    return dataset
  }

  /** The call that could not be read, where such are shown; else one of the predictor's calls. */
  #callToShow({ calls, failure }: Trajectory, name: string): TraceEntry | null {
    const own = calls.flatMap((call) => (call.name === name ? [call.entry] : []))
    const failed = own.find((entry) => entry.failure)
    if (failed && this.options.addFormatFailureAsFeedback) return failed
    const readable = own.filter((entry) => !entry.failure)
    return failure || readable.length === 0 ? null : this.options.random.choice(readable)
  }

  async #describe(trajectory: Trajectory, name: string, entry: TraceEntry): Promise<ReflectiveExample> {
    const { failure, prediction, predictor } = entry
    const Inputs = describeInputs(entry)
    if (failure) return { Inputs, 'Generated Outputs': unreadable(failure.raw), Feedback: structureOf(predictor) }
    const outputs = Object.fromEntries(prediction!.items().map(([key, value]) => [key, pyStr(value)]))
    return { Inputs, 'Generated Outputs': outputs, Feedback: await this.#feedback(trajectory, name, entry) }
  }

  async #feedback({ example, prediction, calls, score }: Trajectory, name: string, entry: TraceEntry): Promise<string> {
    const trace = calls.map((call) => call.entry)
    const answer = readScore(await this.options.metric(example, prediction!, trace, name, [entry]))
    if (answer.score !== score && this.options.warnOnScoreMismatch && !this.#warnedOfMismatch) {
      this.#warnedOfMismatch = true
      currentSettings().onWarning?.(
        `The metric gave ${answer.score} when asked about the predictor '${name}', but ${score} for the program. GEPA uses the program's score. Let both be the same, or set warnOnScoreMismatch: false.`,
      )
    }
    return answer.feedback
  }
}

async function runProgram(
  program: Module,
  example: Example,
  trace: TraceEntry[],
): Promise<{ prediction: Prediction | null; failure: AdapterParseError | null }> {
  try {
    const prediction = await context({ trace }, () => program.call(fieldsOf(example.inputs()) as never))
    return { prediction: prediction as Prediction, failure: null }
  } catch (error) {
    if (error instanceof AdapterParseError) return { prediction: null, failure: error }
    throw error
  }
}

/** The calls of the program's own predictors that were read, and the one that ended the program. */
function namedCalls(program: Module, trace: readonly TraceEntry[], failure: AdapterParseError | null): Trajectory['calls'] {
  const names = new Map(program.namedPredictors().map(([name, predictor]) => [predictor, name]))
  return trace.flatMap((entry) => {
    const name = names.get(entry.predictor)
    return name !== undefined && (entry.failure === null || entry.failure === failure) ? [{ name, entry }] : []
  })
}

function describeInputs({ inputs, predictor }: TraceEntry): Record<string, string> {
  const history = predictor.signature.inputFields.find((field) => field.type.kind === 'history' && field.name in inputs)?.name
  const shown: Record<string, string> = {}
  if (history !== undefined) {
    const { messages } = inputs[history] as { messages: readonly unknown[] }
    const turns = messages.map((message, i) => `  ${i}: ${pyRepr(message)}\n`).join('')
    shown['Context'] = `\`\`\`json\n${turns}\`\`\``
  }
  for (const [key, value] of Object.entries(inputs)) if (key !== history) shown[key] = pyStr(value)
  return shown
}

function unreadable(raw: string): string {
  return `Couldn't parse the output as per the expected output format. The model's raw response was:\n\`\`\`\n${raw}\n\`\`\`\n\n`
}

function structureOf({ signature }: Predict): string {
  const messages = new ChatAdapter().format(signature, [], {})
  const shown = messages.map(({ role, content }) => `${role}: ${content}\n`).join('')
  return `Your output failed to parse. Follow this structure:\n${shown}`
}

/** @throws OptionError for what is no number, boolean, prediction or record with a score */
function readScore(value: unknown): { score: number; feedback: string } {
  const isRecord = typeof value === 'object' && value !== null
  const fields = isRecord ? fieldsOf(value) : null
  const given = scoreOf(fields && 'score' in fields ? fields['score'] : value)
  const feedback = (fields?.['feedback'] ?? null) as unknown
  const shown = typeof given === 'boolean' ? pyRepr(given) : pyFloat(given)
  return {
    score: Number(given),
    feedback: feedback === null ? `This trajectory got a score of ${shown}.` : pyStr(feedback),
  }
}
