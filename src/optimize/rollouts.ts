// Runs the program on a step's examples, several times each, and scores what came out.

import { AdapterParseError, LMError, OptionError } from '../errors'
import {
  type Adapter,
  context,
  type Example,
  fieldsOf,
  type LM,
  type Module,
  type Predict,
  Prediction,
  type Rewarded,
  rewardOf,
  scoreOf,
  type TraceEntry,
} from '../program'
import type { Rollout, RolloutCall } from './groups'
import type { GrpoSettings } from './grpo-options'
import { gate, limited } from './limited'
import { alignRewards } from './rewards'
import { seedOf } from './sampler'

/** Metrics that may wait for a judge: fewer at a time than rollouts, which are sampled together. */
const SCORED_AT_ONCE = 64

export interface RolloutRequest {
  readonly program: Module
  readonly lm: LM
  readonly trainset: readonly Example[]
  readonly settings: GrpoSettings
  /** From 0; part of every seed. */
  readonly step: number
  /** Indices into the trainset. */
  readonly examples: readonly number[]
  readonly signal?: AbortSignal
  /** Told after each rollout how many are done. */
  readonly onRollout?: (done: number) => void
}

/**
 * All rollouts of a step, example by example. Each runs in a context of its own with seeds from (run seed, step, example, rollout, call),
 * so a rollout is the same alone or in a crowd.
 * @throws OptionError when the metric throws or returns no number; LMError when the model can't be reached; the program's error when every rollout threw
 */
export async function rolloutStep(request: RolloutRequest): Promise<Rollout[]> {
  const { settings } = request
  // An example that a step meets twice (at the border of two epochs) gets further rollouts, not the same ones again: its group is larger.
  const begun = new Map<number, number>()
  const jobs = request.examples.flatMap((example) => {
    const first = begun.get(example) ?? 0
    begun.set(example, first + settings.numRolloutsPerGrpoStep)
    return Array.from({ length: settings.numRolloutsPerGrpoStep }, (_, i) => ({ example, rollout: first + i }))
  })
  let done = 0
  const judging = gate(SCORED_AT_ONCE)
  const names = new Map(request.program.namedPredictors().map(([name, predictor]) => [predictor, name]))
  const rollouts = await together(request.signal, (signal) =>
    limited(jobs, settings.numThreads, async (job) => {
      const rollout = await rollOut({ ...request, signal, judging, names }, job)
      request.onRollout?.(++done)
      return rollout
    }),
  )
  const errors = rollouts.flatMap((rollout) => (rollout.programError ? [rollout.programError] : []))
  if (errors.length === rollouts.length) throw errors[0]
  return alignRewards(rollouts, settings.rewardWeights)
}

/** What the rollouts of a step share. */
interface SharedRequest extends RolloutRequest {
  readonly judging: ReturnType<typeof gate>
  readonly names: ReadonlyMap<Predict, string>
}

async function rollOut(
  request: SharedRequest,
  { example: index, rollout }: { example: number; rollout: number },
): Promise<Rollout> {
  const { program, settings, step, signal, judging, names } = request
  signal?.throwIfAborted()
  const example = request.trainset[index]!
  const trace: TraceEntry[] = []
  let call = 0
  const lmOptions = () => ({ seed: seedOf(settings.seed, step, index, rollout, call++), cache: false })
  const run = await context({ trace, lmOptions, signal: signal ?? null, lm: request.lm, adapterFallback: false }, () =>
    attempt(async () => asPrediction(await program.call(fieldsOf(example.inputs()) as never))),
  )
  signal?.throwIfAborted()
  const { error, value } = run
  if (error instanceof LMError) throw error
  const failure = error instanceof AdapterParseError ? error : null
  return {
    example: index,
    title: titleOf(example),
    calls: trace.flatMap((entry) => rolloutCalls(entry, names.get(entry.predictor), settings)),
    ...(value !== undefined
      ? await judging(() => score(settings, { example, prediction: value, trace }))
      : { reward: failure ? parseReward(failure, trace, settings) : settings.failureScore, rewards: null }),
    formatFailure: failure !== null,
    programError: error && !failure ? error : null,
  }
}

function asPrediction(value: unknown): Prediction {
  if (value instanceof Prediction) return value
  throw new OptionError(
    `The program's forward returned ${value === null ? 'null' : typeof value}; it must return a Prediction, e.g. what a predictor answered.`,
  )
}

async function attempt(run: () => Promise<Prediction>): Promise<{ value?: Prediction; error?: Error }> {
  try {
    return { value: await run() }
  } catch (error) {
    return { error: error instanceof Error ? error : new Error(String(error)) }
  }
}

/** DSPy's documented rule: from formatFailureScore (no field found) towards failureScore (all but the last found). */
function parseReward(failure: AdapterParseError, trace: readonly TraceEntry[], settings: GrpoSettings): number {
  const expected = trace.at(-1)?.predictor.signature.outputFields.length ?? 1
  const found = Object.keys(failure.parsed ?? {}).length
  return settings.formatFailureScore + (settings.failureScore - settings.formatFailureScore) * (found / expected)
}

/** The reward, a finite number, and what it is the sum of. A boolean counts as 1 or 0. */
async function score(
  settings: GrpoSettings,
  run: { example: Example; prediction: Prediction; trace: readonly TraceEntry[] },
): Promise<Rewarded> {
  const where = `on ${JSON.stringify(titleOf(run.example))} with the prediction ${JSON.stringify(run.prediction.toDict())}`
  try {
    return rewardOf(await settings.metric(run.example, run.prediction, [...run.trace]), settings.rewardWeights, scoreOf)
  } catch (cause) {
    const what = cause instanceof OptionError ? 'gave no reward' : 'threw'
    const why = (cause instanceof Error ? cause.message : String(cause)).replace(/\.$/, '')
    throw new OptionError(`The metric ${what} ${where}: ${why}. Mend the metric and resume the run.`, { cause })
  }
}

/** Every completion of a call is a row; with demonstrations excluded the trained prompt is formatted anew without them. */
function rolloutCalls(entry: TraceEntry, name: string | undefined, settings: GrpoSettings): RolloutCall[] {
  if (name === undefined) return [] // a predictor the program made on the fly: nothing ties its calls together
  const messages = settings.excludeDemos
    ? withoutDemos(entry.predictor, entry, settings.adapter ?? entry.adapter)
    : entry.messages
  return entry.completions.map((completion) => ({
    predictor: name,
    messages,
    text: completion.text,
    completionId: completion.completionId || null,
  }))
}

function withoutDemos(predictor: Predict, entry: TraceEntry, adapter: Adapter): RolloutCall['messages'] {
  return predictor.demos.length === 0 && adapter === entry.adapter
    ? entry.messages
    : adapter.format(predictor.signature, [], entry.inputs)
}

/** A few words that name an example to a person: its first input. */
export function titleOf(example: Example): string {
  const first = Object.values(example.inputs().toDict())[0]
  const text = typeof first === 'string' ? first : JSON.stringify(first ?? null)
  return text.length > 80 ? `${text.slice(0, 79)}…` : text
}

/** Runs `work` with a signal that aborts when `outer` does and when the work fails: the calls still in flight end with the first error. */
async function together<T>(outer: AbortSignal | undefined, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const stop = new AbortController()
  const abort = () => stop.abort(outer?.reason)
  if (outer?.aborted) abort()
  outer?.addEventListener('abort', abort, { once: true })
  try {
    return await work(stop.signal)
  } catch (error) {
    stop.abort(error)
    throw error
  } finally {
    outer?.removeEventListener('abort', abort)
  }
}
