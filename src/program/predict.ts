// Predict: one signature, one call of the language model. Everything an optimizer changes is here: demos, instructions, the model.

import { type AdapterParseError, OptionError } from '../errors'
import type { AdapterCall, Demo } from './adapter'
import { BaseLM, type LMOptions, withoutNulls } from './base-lm'
import { ChatAdapter } from './chat-adapter'
import { currentSettings, type Settings } from './context'
import { fieldsOf, Prediction } from './example'
import { allowsNone } from './field-type'
import type { Loose } from './infer-types'
import { Module } from './module'
import {
  ensureSignature,
  type InputsOf,
  type OutputsOf,
  type Signature,
  type SignatureSource,
  type SignatureState,
} from './signature'

/** Options of a single call; `config` goes over the predictor's own. */
export interface PredictOptions {
  readonly config?: LMOptions
  readonly demos?: readonly Demo[]
  readonly signature?: Signature
  readonly lm?: BaseLM
  /** Answer without adding to the trace. */
  readonly trace?: boolean
}

export interface PredictorState {
  traces: unknown[]
  train: unknown[]
  demos: Loose[]
  signature: SignatureState
  lm: Record<string, unknown> | null
}

/**
 * Maps inputs to outputs by one language model call.
 * @example const { answer } = await new Predict('question -> answer').call({ question: 'What is 2 + 2?' })
 */
export class Predict<const S extends SignatureSource = SignatureSource> extends Module {
  signature: Signature<S>
  /** Sampling values of this predictor. */
  config: LMOptions
  /** Worked examples that stand in the prompt. */
  demos: Demo[] = []
  /** null: the configured one. */
  lm: BaseLM | null = null

  constructor(signature: S | Signature<S>, config: LMOptions = {}) {
    super()
    this.signature = ensureSignature(signature)
    this.config = config
  }

  /** @throws AdapterParseError when a completion can't be read; LMError when the model can't be reached */
  async forward(inputs: InputsOf<S>, options: PredictOptions = {}): Promise<Prediction<OutputsOf<S>>> {
    const now = currentSettings()
    const signature = options.signature ?? (this.signature as unknown as Signature)
    const lm = chooseLm(options.lm ?? this.lm ?? now.lm)
    const values = this.fillInputs(signature, fieldsOf(inputs as object), now)
    const call = await (now.adapter ?? new ChatAdapter()).call({
      lm,
      options: samplingOptions(lm, { ...contextOptions(now), ...this.config, ...options.config }),
      signature,
      demos: options.demos ?? this.demos,
      inputs: values,
      signal: now.signal,
      listen: now.stream?.(this as unknown as Predict),
    })
    const failure = firstFailure(call)
    const prediction = failure ? null : Prediction.fromCompletions(call.results.map((result) => result.fields!))
    if (options.trace ?? true) this.addToTrace(now, { call, inputs: values, prediction, failure })
    if (failure) throw failure
    return prediction as Prediction<OutputsOf<S>>
  }

  /** Back to the start: no demos, the configured language model. */
  reset(): void {
    this.lm = null
    this.demos = []
  }

  updateConfig(changes: LMOptions): void {
    this.config = { ...this.config, ...changes }
  }

  dumpOwnState(): PredictorState {
    return {
      traces: [],
      train: [],
      demos: this.demos.map((demo) => JSON.parse(JSON.stringify(fieldsOf(demo))) as Loose),
      signature: this.signature.dumpState(),
      lm: this.lm?.dumpState() ?? null,
    }
  }

  /** Takes over demos, signature texts, and the language model unless none is given. */
  loadOwnState(state: PredictorState, lm?: BaseLM | null): void {
    this.demos = state.demos.map((demo) => ({ ...demo }))
    this.signature = this.signature.loadState(state.signature)
    if (lm !== undefined) this.lm = lm
  }

  protected override ownPredictors(): [string, Predict][] {
    return [['self', this as unknown as Predict]]
  }

  protected override predictorsAs(path: string): [string, Predict][] {
    return [[path, this as unknown as Predict]]
  }

  /** Defaults for inputs that are absent; a word to whoever listens about those still missing and those nobody asked for. */
  private fillInputs(signature: Signature, given: Loose, { onWarning }: Settings): Loose {
    const values = { ...given }
    for (const field of signature.inputFields)
      if (!(field.name in values) && field.default !== undefined) values[field.name] = field.default
    const names = signature.inputFields.map((field) => field.name)
    const extra = Object.keys(values).filter((key) => !names.includes(key))
    if (extra.length > 0)
      onWarning?.(
        `Input contains fields not in the signature, which are ignored: ${extra.join(', ')}. Expected: ${names.join(', ')}.`,
      )
    const missing = signature.inputFields
      .filter((field) => !(field.name in values) && !allowsNone(field.type))
      .map((field) => field.name)
    if (missing.length > 0) {
      const present = names.filter((name) => name in values)
      onWarning?.(`Not all input fields were provided. Present: ${present.join(', ') || 'none'}. Missing: ${missing.join(', ')}.`)
    }
    return values
  }

  private addToTrace(
    { trace, maxTraceSize }: Settings,
    entry: { call: AdapterCall; inputs: Loose; prediction: Prediction | null; failure: AdapterParseError | null },
  ): void {
    if (!trace || maxTraceSize <= 0) return
    const { call, ...rest } = entry
    const { adapter, messages, completions } = call
    if (trace.length >= maxTraceSize) trace.shift()
    trace.push({ predictor: this as unknown as Predict, ...rest, adapter, messages, completions })
  }
}

/** One completion that can't be read fails the whole call, as in DSPy. */
function firstFailure(call: AdapterCall): AdapterParseError | null {
  for (const result of call.results) if (result.issues) return result.error
  return null
}

function chooseLm(lm: unknown): BaseLM {
  if (lm instanceof BaseLM) return lm
  if (lm === null || lm === undefined) {
    throw new OptionError("No LM is loaded. Configure one first: dspy.configure({ lm: new dspy.LM('openai/gpt-4o-mini') }).")
  }
  if (typeof lm === 'string')
    throw new OptionError(`The LM must be an object, not the string '${lm}'. Write new dspy.LM('${lm}').`)
  throw new OptionError('The LM must be a dspy.LM, a dspy.DummyLM or another subclass of dspy.BaseLM.')
}

function contextOptions({ lmOptions }: Settings): LMOptions {
  return (typeof lmOptions === 'function' ? lmOptions() : lmOptions) ?? {}
}

/** Several completions at a temperature near zero would be the same one: DSPy then samples at 0.7, and so do we. */
function samplingOptions(lm: BaseLM, given: LMOptions): LMOptions {
  const options = withoutNulls(given)
  const temperature = options.temperature ?? lm.options.temperature ?? null
  const n = options.n ?? lm.options.n ?? 1
  return n > 1 && (temperature === null || temperature <= 0.15) ? { ...options, temperature: 0.7 } : options
}
