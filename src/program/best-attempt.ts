// Several attempts of one program, each with a rollout id of its own and at temperature 1: what BestOfN and Refine share.

import { OptionError } from '../errors'
import type { BaseLM } from './base-lm'
import { context, currentSettings, type TraceEntry } from './context'
import { scoreOf } from './evaluate'
import type { Module } from './module'

export type ModuleInputs<M extends Module> = Parameters<M['forward']>[0]
export type ModuleOutput<M extends Module> = Awaited<ReturnType<M['forward']>>

/** How good an answer is. */
export type RewardFunction<M extends Module = Module> = (
  inputs: ModuleInputs<M>,
  prediction: ModuleOutput<M>,
) => number | boolean | Promise<number | boolean>

export interface AttemptOptions<M extends Module> {
  readonly module: M
  /** Attempts at most. */
  readonly N: number
  readonly rewardFn: RewardFunction<M>
  /** A reward at which no further attempt is made; null: all N are made. */
  readonly threshold: number | null
  /** Failing attempts that are borne, as dspy counts them; N unless given. */
  readonly failCount?: number
}

/** An attempt that worked. */
export interface Attempt<M extends Module> {
  readonly module: M
  readonly prediction: ModuleOutput<M>
  readonly reward: number
  readonly trace: readonly TraceEntry[]
}

export interface AttemptPlan<M extends Module> {
  /** In warnings. */
  readonly name: (attempt: number) => string
  readonly run: (module: M) => Promise<ModuleOutput<M>>
  /** Told of an attempt below the threshold, unless it was the last; what it throws counts as a failure. */
  readonly onMiss?: (attempt: Attempt<M>) => Promise<void>
}

/** @throws OptionError for options that can't be meant */
export function checkAttempts<M extends Module>({ N, threshold, rewardFn, failCount }: AttemptOptions<M>): void {
  if (!(Number.isInteger(N) && N > 0)) throw new OptionError(`N must be a whole number from 1 on, but it is ${N}.`)
  if (typeof rewardFn !== 'function')
    throw new OptionError(`rewardFn must be a function (inputs, prediction) => number, but it is ${rewardFn}.`)
  if (threshold !== null && !Number.isFinite(threshold))
    throw new OptionError(`threshold must be a number or null, but it is ${threshold}.`)
  if (failCount !== undefined && !(failCount >= 0)) throw new OptionError(`failCount must be 0 or more, but it is ${failCount}.`)
}

/**
 * The best of the attempts; of equals the first. Its calls join the trace.
 * @throws the attempt's error when too many failed, or none worked
 */
export async function bestAttempt<M extends Module>(
  options: AttemptOptions<M>,
  inputs: ModuleInputs<M>,
  plan: AttemptPlan<M>,
): Promise<ModuleOutput<M>> {
  const { module, N, threshold } = options
  const outer = currentSettings()
  const lm = module.getLm() ?? outer.lm
  if (!lm)
    throw new OptionError("No LM is loaded. Configure one first: dspy.configure({ lm: new dspy.LM('openai/gpt-4o-mini') }).")
  let best: Attempt<M> | null = null
  let bearable = options.failCount ?? N
  let lastError: unknown = null
  for (let i = 0; i < N; i++) {
    const rolloutId = (lm.options.rolloutId ?? 0) + i
    try {
      const attempt = await attemptWith(lm.copy({ rolloutId, temperature: 1 }), options, { inputs, run: plan.run })
      if (attempt.reward > (best?.reward ?? Number.NEGATIVE_INFINITY)) best = attempt
      if ((threshold !== null && attempt.reward >= threshold) || i === N - 1) break
      await plan.onMiss?.(attempt)
    } catch (error) {
      outer.signal?.throwIfAborted()
      outer.onWarning?.(
        `${plan.name(i + 1)} failed with rollout id ${rolloutId}: ${error instanceof Error ? error.message : String(error)}`,
      )
      if (i > bearable) throw error
      bearable--
      lastError = error
    }
  }
  if (!best) throw lastError
  outer.trace?.push(...best.trace)
  return best.prediction
}

async function attemptWith<M extends Module>(
  lm: BaseLM,
  { module, rewardFn }: AttemptOptions<M>,
  { inputs, run }: { inputs: ModuleInputs<M>; run: (module: M) => Promise<ModuleOutput<M>> },
): Promise<Attempt<M>> {
  const copy = module.deepcopy()
  copy.setLm(lm)
  const trace: TraceEntry[] = []
  return context({ trace }, async () => {
    const prediction = await run(copy)
    const calls = [...trace] // what the reward calls is not part of the attempt
    return { module: copy, prediction, reward: Number(scoreOf(await rewardFn(inputs, prediction))), trace: calls }
  })
}

/** Calls a module whose inputs are known by type only. */
export function callModule<M extends Module>(module: M, inputs: ModuleInputs<M>): Promise<ModuleOutput<M>> {
  return module.call(...([inputs] as unknown as Parameters<M['forward']>)) as Promise<ModuleOutput<M>>
}
