// Refine: as BestOfN, and after each miss the model itself advises every predictor what to do otherwise. Follows dspy/predict/refine.py.

import {
  type Attempt,
  type AttemptOptions,
  bestAttempt,
  callModule,
  checkAttempts,
  type ModuleInputs,
  type ModuleOutput,
} from './best-attempt'
import { ChatAdapter } from './chat-adapter'
import { context, currentSettings } from './context'
import { fieldsOf } from './example'
import { HintingAdapter } from './hinting-adapter'
import { Module } from './module'
import { describePredictors, OFFER_FEEDBACK } from './offer-feedback'
import { Predict } from './predict'
import { pyFloat } from './python-text'

export interface RefineOptions<M extends Module> extends AttemptOptions<M> {
  /** The program's source, as the advisor sees it; its class's own text unless given. */
  readonly moduleCode?: string
  /** The reward function's source; its own text unless given. */
  readonly rewardCode?: string
}

/** @example new dspy.Refine({ module: qa, N: 3, rewardFn: (_, { answer }) => Number(!answer.includes(' ')), threshold: 1 }) */
export class Refine<M extends Module = Module> extends Module {
  readonly module: M
  private readonly options: { readonly attempts: Omit<RefineOptions<M>, 'module'> }

  constructor(options: RefineOptions<M>) {
    super()
    checkAttempts(options)
    const { module, ...attempts } = options
    this.module = module
    this.options = { attempts }
  }

  async forward(inputs: ModuleInputs<M>): Promise<ModuleOutput<M>> {
    let advice: Record<string, string> | null = null
    return bestAttempt({ ...this.options.attempts, module: this.module }, inputs, {
      name: () => 'Refine: Attempt',
      run: (module) => (advice ? withAdvice(advice, module, () => callModule(module, inputs)) : callModule(module, inputs)),
      onMiss: async (attempt) => {
        advice = await this.advise(inputs, attempt)
      },
    })
  }

  private async advise(
    inputs: ModuleInputs<M>,
    { module, prediction, reward, trace }: Attempt<M>,
  ): Promise<Record<string, string>> {
    const {
      moduleCode = module.constructor.toString(),
      rewardFn,
      rewardCode = rewardFn.toString(),
      threshold,
    } = this.options.attempts
    const names = new Map(module.namedPredictors().map(([name, predictor]) => [predictor, name]))
    const trajectory = trace.map((entry) => ({
      module_name: names.get(entry.predictor) ?? null,
      inputs: entry.inputs,
      outputs: entry.prediction ? fieldsOf(entry.prediction) : null,
    }))
    const { advice } = await new Predict(OFFER_FEEDBACK).call({
      program_code: moduleCode,
      modules_defn: describePredictors(module),
      program_inputs: indented(inputs),
      program_trajectory: indented(trajectory),
      program_outputs: indented(fieldsOf(prediction as object)),
      reward_code: rewardCode,
      target_threshold: threshold === null ? 'null' : pyFloat(threshold),
      reward_value: pyFloat(reward),
      module_names: indented([...names.values()]),
    } as never)
    return advice
  }
}

/** Runs under an adapter that gives every predictor of the module its hint. */
function withAdvice<T>(advice: Readonly<Record<string, string>>, module: Module, run: () => Promise<T>): Promise<T> {
  const names = new Map(module.namedPredictors().map(([name, predictor]) => [predictor.signature as unknown, name]))
  const inner = currentSettings().adapter ?? new ChatAdapter()
  const adapter = new HintingAdapter(inner, (signature) => advice[names.get(signature) ?? ''] ?? 'N/A')
  return context({ adapter }, run)
}

/** JSON over several lines; what JSON can't hold is named instead. */
function indented(value: unknown): string {
  const shown = (_: string, item: unknown) =>
    typeof item === 'function' || typeof item === 'bigint' || typeof item === 'symbol'
      ? `<non-serializable: ${typeof item}>`
      : item
  return JSON.stringify(value, shown, 2)
}
