// Replays of the modules: Predict's call, ReAct, BestOfN, Refine, MultiChainComparison, majority.
import { z } from 'zod'
import { AdapterParseError } from '../../../src/errors'
import {
  BestOfN,
  context,
  fieldsOf,
  type LMOptions,
  Module,
  MultiChainComparison,
  majority,
  Predict,
  type Prediction,
  ReAct,
  Refine,
  Tool,
  type TraceEntry,
} from '../../../src/program'
import { normalizeText } from '../../../src/program/normalize-text'
import { PyFloat } from '../../../src/program/python-text'
import { type Difference, firstDifference, type GoldenCase, type Replay } from './case'
import { readSignature, type SignatureDescription, describe as signatureRows } from './dspy'
import { buildProgram, type ProgramDescription } from './program'
import { type LMScript, ScriptedLM } from './scripted-lm'

type Row = Record<string, unknown>

export const moduleReplays: Record<string, Replay> = {
  predict_call: replayPredict,
  react: replayReAct,
  best_of_n: replayBestOfN,
  refine: replayRefine,
  multi_chain_comparison: replayMultiChain,
  majority: ({ input, expected }) => replayMajority(input as { completions: Row[]; options: Row }, expected as Row),
}

/** What ran: the result or failure, the calls, the trace and the warnings. */
interface Ran {
  readonly ok: boolean
  readonly value?: Prediction
  readonly error?: Row
  readonly lm: ScriptedLM
  readonly trace: readonly TraceEntry[]
  readonly warnings: readonly string[]
}

async function run(script: unknown, lmOptions: LMOptions, work: () => Promise<unknown>): Promise<Ran> {
  const lm = new ScriptedLM(script as LMScript, lmOptions)
  const trace: TraceEntry[] = []
  const warnings: string[] = []
  const shared = { lm, trace, warnings }
  const settings = { lm, trace, onWarning: (text: string) => void warnings.push(text.split('\n')[0]!) }
  try {
    return { ok: true, value: (await context(settings, work)) as Prediction, ...shared }
  } catch (error) {
    return { ok: false, error: describeError(error as Error), ...shared }
  }
}

function describeError(error: Error): Row {
  if (!(error instanceof AdapterParseError)) return { class: error.name, message: error.message }
  const { adapterName, raw, parsed, message } = error
  return { class: 'AdapterParseError', adapter_name: adapterName, lm_response: raw, parsed_result: parsed, message }
}

/** The calls with their messages, or the last of them; an error that the script throws leaves no answer. */
function callsOf(lm: ScriptedLM, detail: 'whole' | 'brief'): Row[] {
  return lm.calls.map(({ messages, kwargs, response }) => ({
    ...(detail === 'whole' ? { messages } : { last_message: messages.at(-1)!.content }),
    kwargs,
    response,
  }))
}

/** Python's frames in an observation aren't ours, and an error the script throws isn't recorded as an answer. */
function comparable(value: unknown): unknown {
  if (typeof value === 'string') return value.replaceAll('\n<TRACEBACK>\n', '')
  if (Array.isArray(value)) return value.map(comparable)
  if (typeof value !== 'object' || value === null) return value
  if ('raise' in value) return null
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, comparable(item)]))
}

/** Whole numbers that are floats in Python are numbers in the vectors. */
function plain(value: unknown): unknown {
  if (value instanceof PyFloat) return value.value
  if (Array.isArray(value)) return value.map(plain)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]))
}

const predictionRow = (prediction: Prediction | undefined) => (prediction ? plain(fieldsOf(prediction)) : undefined)

const traceRows = (trace: readonly TraceEntry[]) =>
  trace.map(({ inputs, prediction }) => ({ inputs, outputs: prediction ? fieldsOf(prediction) : null }))

const predictorRows = (module: Module) =>
  module.namedPredictors().map(([name, predictor]) => ({ name, signature: signatureRows(predictor.signature) }))

// ---------------------------------------------------------------- Predict

const OPTION_NAMES: Record<string, keyof LMOptions> = { max_tokens: 'maxTokens', rollout_id: 'rolloutId' }

function lmOptions(kwargs: Row): LMOptions {
  return Object.fromEntries(Object.entries(kwargs).map(([key, value]) => [OPTION_NAMES[key] ?? key, value]))
}

async function replayPredict({ input, expected }: GoldenCase): Promise<Difference | null> {
  const given = input as { signature: SignatureDescription; config: Row; lm_kwargs: Row; call_kwargs: Row; lm_script: unknown }
  const predict = new Predict(readSignature(given.signature), lmOptions(given.config))
  const { config, demos, ...inputs } = given.call_kwargs
  const options = { ...(config ? { config: lmOptions(config as Row) } : {}), ...(demos ? { demos: demos as Row[] } : {}) }
  const ran = await run(given.lm_script, lmOptions(given.lm_kwargs), () => predict.call(inputs, options))
  return firstDifference(expected, {
    ok: ran.ok,
    value: {
      prediction: predictionRow(ran.value),
      completions: ran.value?.completions?.fields,
      trace: traceRows(ran.trace),
      config_after: wireNames(predict.config),
    },
    lm_calls: callsOf(ran.lm, 'whole'),
  })
}

function wireNames(options: LMOptions): Row {
  const wire = Object.fromEntries(Object.entries(OPTION_NAMES).map(([name, key]) => [key, name]))
  return Object.fromEntries(Object.entries(options).map(([key, value]) => [wire[key] ?? key, value]))
}

// ---------------------------------------------------------------- ReAct

/** The vectors' Python tools, written again. */
const TOOLS: Record<string, (description: string) => Tool> = {
  search: (description) =>
    new Tool({
      name: 'search',
      description,
      args: z.object({ query: z.string(), k: z.int().default(2) }),
      run: ({ query, k }) => `${k} hits for ${query}`,
    }),
  calc: (description) =>
    new Tool({
      name: 'calc',
      description,
      args: z.object({ expr: z.string() }),
      run: ({ expr }) => new PyFloat(expr.split('+').reduce((sum, term) => sum + Number(term), 0)),
    }),
  lookup: (description) =>
    new Tool({
      name: 'lookup',
      description,
      args: z.object({ key: z.string(), table: z.record(z.string(), z.string()) }),
      run: ({ key, table }) => table[key] ?? keyError(key),
    }),
}

function keyError(key: string): never {
  throw Object.assign(new Error(`'${key}'`), { name: 'KeyError' })
}

async function replayReAct({ input, expected }: GoldenCase): Promise<Difference | null> {
  const { signature, tools, inputs, options, lm_script } = input as {
    signature: SignatureDescription
    tools: { name: string; desc: string; args: Row }[]
    inputs: Row
    options: { max_iters?: number }
    lm_script: unknown
  }
  const built = tools.map(({ name, desc }) => TOOLS[name]!(desc))
  const agent = new ReAct(readSignature(signature), {
    tools: built,
    ...(options.max_iters === undefined ? {} : { maxIters: options.max_iters }),
  })
  const schemas = tools.map(({ args }, i) => firstDifference(args, built[i]!.args, { path: `tools[${i}].args` }))
  const ran = await run(lm_script, {}, () => agent.call(inputs))
  const got = { predictors: predictorRows(agent), lm_calls: callsOf(ran.lm, 'whole') }
  const result = ran.ok ? { value: predictionRow(ran.value) } : { error: ran.error }
  return (
    schemas.find((difference) => difference !== null) ??
    firstDifference(comparable(expected), { ok: ran.ok, ...result, ...(comparable(got) as Row) })
  )
}

// ---------------------------------------------------------------- BestOfN and Refine

async function replayBestOfN({ input, expected }: GoldenCase): Promise<Difference | null> {
  const { module, inputs, N, threshold, reward, options, lm_script } = input as {
    module: ProgramDescription
    inputs: Row
    N: number
    threshold: number
    reward: { field: string; scores: Record<string, number>; raise_on?: string[] }
    options: { fail_count?: number }
    lm_script: unknown
  }
  const rewardFn = (_: unknown, prediction: unknown) => {
    const value = (prediction as Row)[reward.field] as string
    if (reward.raise_on?.includes(value)) throw Object.assign(new Error('reward refuses'), { name: 'ValueError' })
    return reward.scores[value] ?? 0
  }
  const failCount = options.fail_count === undefined ? {} : { failCount: options.fail_count }
  const best = new BestOfN({ module: buildProgram(module), N, threshold, rewardFn, ...failCount })
  const ran = await run(lm_script, {}, () => best.call(inputs as never))
  const value = { prediction: predictionRow(ran.value), trace_length_added: ran.trace.length }
  return firstDifference(expected, {
    ok: ran.ok,
    ...(ran.ok ? { value } : { error: ran.error }),
    printed: ran.warnings,
    lm_calls: callsOf(ran.lm, 'brief'),
  })
}

class OneWord extends Module {
  qa = new Predict('question -> answer')
  forward(inputs: { question: string }) {
    return this.qa.call(inputs)
  }
}

async function replayRefine({ input, expected }: GoldenCase): Promise<Difference | null> {
  const { module_code, reward_code, N, threshold, inputs, lm_script } = input as Row & { N: number; threshold: number }
  const module = new OneWord()
  const refine = new Refine({
    module,
    N,
    threshold,
    rewardFn: (_, { answer }) => answer.split(' ').length === 1,
    moduleCode: module_code as string,
    rewardCode: reward_code as string,
  })
  const ran = await run(lm_script, {}, () => refine.call(inputs as { question: string }))
  const value = { prediction: predictionRow(ran.value), trace: traceRows(ran.trace) }
  return firstDifference(expected, {
    ok: ran.ok,
    ...(ran.ok ? { value } : { error: ran.error }),
    lm_calls: callsOf(ran.lm, 'whole'),
  })
}

// ---------------------------------------------------------------- MultiChainComparison and majority

async function replayMultiChain({ input, expected }: GoldenCase): Promise<Difference | null> {
  const { signature, M, completions, inputs, lm_script } = input as Row & { M: number; completions: Row[]; inputs: Row }
  const compare = new MultiChainComparison(readSignature(signature as SignatureDescription), { M })
  const ran = await run(lm_script, {}, () => compare.call({ completions, ...inputs }))
  const error = ran.error && { ...ran.error, class: 'AssertionError' } // Python's assert; ours is an OptionError
  return firstDifference(expected, {
    ok: ran.ok,
    ...(ran.ok ? { value: predictionRow(ran.value) } : { error }),
    predictors: predictorRows(compare),
    lm_calls: callsOf(ran.lm, 'whole'),
  })
}

function replayMajority({ completions, options }: { completions: Row[]; options: Row }, expected: Row): Difference | null {
  const normalizers = Object.keys(expected.normalize_text as Row).map((text) => [text, normalizeText(text)])
  return firstDifference(expected, {
    ok: true,
    value: predictionRow(majority(completions, options)),
    normalize_text: Object.fromEntries(normalizers),
  })
}
