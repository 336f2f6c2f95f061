// SIMBA's two ways to make a better program out of the runs of one example: show a good run as a demo, or add a rule that sets it apart from a
// bad one. Follows dspy/teleprompt/simba_utils.py.

import { type BaseLM, context, type Example, type Module, Predict } from '../program'
import { pyStr } from '../program/python-text'
import { feedbackInputs, OfferFeedback } from './simba-feedback'
import type { Trajectory } from './simba-trajectory'

/** The runs of one example, best first, and how the whole batch did. */
export interface Bucket {
  readonly runs: readonly Trajectory[]
  readonly maxScore: number
  readonly minScore: number
  readonly maxToMinGap: number
  readonly maxToAvgGap: number
}

/** The scores that a tenth and nine tenths of the batch's runs don't exceed. */
export interface BatchRange {
  readonly percentile10: number
  readonly percentile90: number
}

/** What a strategy did: demos added, advice by predictor, or why it left the program as it was. */
export type StrategyOutcome =
  | { readonly added: number }
  | { readonly advice: Readonly<Record<string, string>> }
  | { readonly skipped: string }

export interface Strategy {
  readonly name: 'append_a_demo' | 'append_a_rule'
  /** Changes the program in place. */
  apply(bucket: Bucket, program: Module, range: BatchRange): Promise<StrategyOutcome>
}

/** Adds the best run as a demo to every predictor that it called; of several calls the last. */
export function appendDemo(maxFieldLength: number): Strategy {
  return {
    name: 'append_a_demo',
    async apply({ runs: [good] }, program, { percentile10 }) {
      if (Number(good!.score) <= percentile10)
        return { skipped: `the best score ${good!.score} is at or below the 10th percentile ${percentile10}` }
      const demos = new Map(
        good!.calls.map(({ name, inputs, outputs }) => [name, { augmented: true, ...cut(inputs, maxFieldLength), ...outputs }]),
      )
      const predictors = new Map(program.namedPredictors())
      for (const [name, demo] of demos) {
        const predictor = predictors.get(name)!
        predictor.demos = [...predictor.demos, demo]
      }
      return { added: demos.size }
    },
  }
}

function cut(inputs: Readonly<Record<string, unknown>>, maxLength: number): Record<string, unknown> {
  const entries = Object.entries(inputs).map(([key, value]) => {
    const text = maxLength > 0 ? pyStr(value) : ''
    return [key, text.length > maxLength ? `${text.slice(0, maxLength)}\n\t\t... <TRUNCATED FOR BREVITY>` : value]
  })
  return Object.fromEntries(entries)
}

/** Asks the prompt model what set the best run apart from the worst one, and adds its advice to the instructions. */
export function appendRule(promptModel: () => BaseLM | null): Strategy {
  return {
    name: 'append_a_rule',
    async apply({ runs }, program, { percentile10, percentile90 }) {
      const [better, worse] = [runs[0]!, runs.at(-1)!]
      if (Number(better.score) <= percentile10 || Number(worse.score) >= percentile90)
        return {
          skipped: `the best score ${better.score} is at or below the 10th percentile ${percentile10}, or the worst score ${worse.score} at or above the 90th percentile ${percentile90}`,
        }
      const inputs = feedbackInputs(program, { better, worse })
      const answer = await context({ trace: null, lm: promptModel() }, () => new Predict(OfferFeedback).call(inputs as never))
      return { advice: follow(program, (answer as Example).get('module_advice') as Record<string, string>) }
    },
  }
}

function follow(program: Module, advice: Readonly<Record<string, string>>): Record<string, string> {
  const followed: Record<string, string> = {}
  for (const [name, predictor] of program.namedPredictors()) {
    if (!Object.hasOwn(advice, name)) continue
    followed[name] = advice[name]!
    predictor.signature = predictor.signature.appendInstructions(advice[name]!)
  }
  return followed
}
