// Rollouts and groups as DSPy's GRPO makes them: what it keeps, drops, formats anew and repeats. After bootstrap_trace.py and grpo.py.

import { AdapterParseError, OptionError } from '../errors'
import {
  type Adapter,
  context,
  currentSettings,
  type Example,
  fieldsOf,
  JSONAdapter,
  type Loose,
  type Module,
  type Predict,
  type Prediction,
  type PythonRandom,
  scoreOf,
  type TraceEntry,
  XMLAdapter,
} from '../program'
import type { StepSample } from '../protocol'
import type { DspyGrpoSettings } from './dspy-grpo-options'
import { limited } from './limited'

/** One call of a predictor in a rollout; `failed` is the text that could not be read. */
export interface TracedCall {
  readonly predictor: string
  readonly module: Predict
  readonly inputs: Loose
  readonly prediction: Prediction | null
  readonly failed: string | null
}

export interface TracedRollout {
  readonly calls: readonly TracedCall[]
  readonly score: number
}

/** All rollouts of a step; one that failed in any way but by its format is null. */
export function traceRollouts(
  program: Module,
  examples: readonly Example[],
  settings: DspyGrpoSettings,
  onRollout: () => void,
): Promise<(TracedRollout | null)[]> {
  return limited(examples, settings.numThreads, async (example) => {
    const rollout = await traceRollout(program, example, settings).catch((error: unknown) => {
      currentSettings().signal?.throwIfAborted()
      if (error instanceof OptionError) throw error
      return null
    })
    onRollout()
    return rollout
  })
}

async function traceRollout(program: Module, example: Example, s: DspyGrpoSettings): Promise<TracedRollout> {
  const names = new Map(program.namedPredictors().map(([name, predictor]) => [predictor, name]))
  const inputs = fieldsOf(example.inputs())
  const trace: TraceEntry[] = []
  const calls = (): TracedCall[] =>
    trace.flatMap(({ predictor, inputs: seen, prediction }) =>
      prediction ? [{ predictor: names.get(predictor) ?? '', module: predictor, inputs: seen, prediction, failed: null }] : [],
    )
  try {
    const prediction = (await context({ trace }, () => program.call(inputs as never))) as Prediction
    const score = Number(scoreOf(await s.metric(example as never, prediction as never, trace)))
    return { calls: calls(), score }
  } catch (error) {
    const failing = trace.findLast((entry) => entry.failure !== null)
    if (!(error instanceof AdapterParseError) || !failing || isLost(error)) throw error
    // DSPy notes the program's inputs here, not the predictor's own.
    const failed = { predictor: names.get(failing.predictor) ?? '', module: failing.predictor, inputs, prediction: null }
    return { calls: [...calls(), { ...failed, failed: error.raw }], score: s.formatFailureScore }
  }
}

/** Answers that DSPy loses: those with some of their fields, and fields of a wrong type in JSON. */
function isLost({ parsed, adapterName, cause }: AdapterParseError): boolean {
  return (
    Object.keys(parsed ?? {}).length > 0 ||
    (adapterName === 'JSONAdapter' && cause !== undefined && !(cause instanceof AdapterParseError))
  )
}

export interface DspyGroups {
  /** Predictor by predictor, example by example, call by call; filled up to the number of rollouts with copies. */
  readonly groups: StepSample[][]
  readonly formatFailures: number
  /** What DSPy warns of, once each kind. */
  readonly notes: readonly string[]
}

interface GroupInput {
  /** Rollouts by example; those that were lost are missing. */
  readonly rollouts: readonly (readonly TracedRollout[])[]
  readonly predictors: readonly string[]
  readonly settings: DspyGrpoSettings
  readonly random: PythonRandom
}

/** @throws OptionError for rollouts of unequal length in 'ragged' mode, and for an adapter that DSPy can't train with */
export function dspyGroups({ rollouts, predictors, settings, random }: GroupInput): DspyGroups {
  const adapter = trainingAdapter(settings)
  const notes = new Set<string>()
  let formatFailures = 0
  const groups = predictors.flatMap((predictor) =>
    rollouts.flatMap((own, example) => {
      const calls = own.map((rollout) => ({
        rollout,
        calls: rollout.calls.filter((call) => call.predictor === predictor),
      }))
      const lengths = calls.map((entry) => entry.calls.length)
      if (calls.length !== settings.rollouts)
        notes.add(`Example ${example}: ${calls.length} of ${settings.rollouts} rollouts are left.`)
      if (calls.length === 0 || Math.min(...lengths) === 0) return []
      const evened = calls.map((entry) => ({ ...entry, calls: evenOut(entry.calls, lengths, { settings, random }) }))
      return Array.from({ length: Math.max(...evened.map((entry) => entry.calls.length)) }, (_, k) =>
        evened.map(({ rollout, calls: own }) => {
          const call = own[k]
          if (!call) throw new OptionError(`Rollouts called ${predictor} unequally often; 'ragged' needs equal numbers.`)
          if (call.failed !== null) formatFailures++
          return sample(call, rollout.score, adapter)
        }),
      )
    }),
  )
  for (const group of groups) {
    if (group.length < settings.rollouts)
      notes.add(`A group of ${group.length} is filled up to ${settings.rollouts} with copies.`)
    if (new Set(group.map((one) => JSON.stringify(one))).size < 2) notes.add('A group has no diversity.')
    while (group.length < settings.rollouts) group.push(...group.slice(0, settings.rollouts - group.length))
  }
  return { groups, formatFailures, notes: [...notes] }
}

/** The adapter that writes the training data: with none anywhere XML, whatever the rollouts were asked in. */
export function trainingAdapter({ adapter }: DspyGrpoSettings): Adapter {
  const chosen = adapter ?? currentSettings().adapter ?? new XMLAdapter()
  if (!(chosen instanceof JSONAdapter)) return chosen
  throw new OptionError(
    "DSPy can't write training data in JSON. Pass a ChatAdapter or an XMLAdapter, or leave compat out: then any adapter is trained.",
  )
}

function evenOut(
  calls: readonly TracedCall[],
  lengths: readonly number[],
  { settings, random }: { settings: DspyGrpoSettings; random: PythonRandom },
): readonly TracedCall[] {
  if (settings.mode === 'truncate') return calls.slice(0, Math.min(...lengths))
  if (settings.mode === 'ragged') return calls
  const missing = Math.max(...lengths) - calls.length
  const filler = () => (settings.fill === 'randint' ? random.choice([...calls]) : calls.at(-1)!)
  return [...calls, ...Array.from({ length: missing }, filler)]
}

/** The answer is written anew from its fields; one that could not be read stays as it was. */
function sample({ module, inputs, prediction, failed }: TracedCall, score: number, adapter: Adapter): StepSample {
  const { signature } = module
  if (prediction === null)
    return {
      messages: adapter.format(signature, [], inputs),
      completion: { role: 'assistant', content: failed! },
      reward: score,
    }
  const { messages } = adapter.formatFinetuneData(signature, [], inputs, fieldsOf(prediction))
  return { messages: messages.slice(0, -1), completion: messages.at(-1)!, reward: score }
}
