// Rollouts → groups: one group for each predictor, example and call (the k-th time the predictor was called), as in mmGRPO.

import type { GroupInfo, Message, StepSample } from '../protocol'
import type { ArborGRPOOptions } from './grpo-options'

/** One call of a predictor within a rollout, as it will be trained. */
export interface RolloutCall {
  readonly predictor: string
  /** The prompt to train: as sampled, or without its demonstrations. */
  readonly messages: readonly Message[]
  /** The completion, character for character. */
  readonly text: string
  /** `${response id}#${choice index}` when the server keeps the tokens. */
  readonly completionId: string | null
}

/** One run of the program on one example. */
export interface Rollout {
  readonly example: number
  readonly title: string
  readonly calls: readonly RolloutCall[]
  readonly reward: number
  /** By name where the metric returned several; the same names in all rollouts of a step. */
  readonly rewards: Readonly<Record<string, number | null>> | null
  readonly formatFailure: boolean
  readonly programError: Error | null
}

export interface StepGroups {
  readonly batch: StepSample[][]
  readonly groups: GroupInfo[]
  /** Groups that could not be formed, in words. */
  readonly dropped: readonly string[]
}

type GroupingMode = NonNullable<ArborGRPOOptions['variablyInvokedPredictorGroupingMode']>

/**
 * Groups in a fixed order: examples as given, predictors in the program's order, calls in order. A rollout that did not reach a call is
 * not in its group; nothing is padded with copies. A group of one rollout is dropped: it has no one to be compared with.
 */
export function formGroups(rollouts: readonly Rollout[], predictors: readonly string[], mode: GroupingMode): StepGroups {
  const out: StepGroups & { dropped: string[] } = { batch: [], groups: [], dropped: [] }
  for (const example of new Set(rollouts.map((rollout) => rollout.example))) {
    const own = rollouts.filter((rollout) => rollout.example === example)
    for (const predictor of predictors) {
      const calls = own.map((rollout) => ({ rollout, calls: rollout.calls.filter((call) => call.predictor === predictor) }))
      const reached = calls.filter((entry) => entry.calls.length > 0)
      if (reached.length === 0) continue
      const counts = reached.map((entry) => entry.calls.length)
      const depth = mode === 'truncate' ? Math.min(...counts) : Math.max(...counts)
      for (let k = 0; k < depth; k++) {
        const rows = reached.flatMap(({ rollout, calls }) => {
          // 'fill' repeats a rollout's last call where others went on; 'ragged' leaves the shorter ones out.
          const call = calls[k] ?? (mode === 'fill' ? calls.at(-1) : undefined)
          return call ? [sample(call, rollout)] : []
        })
        const name = depth > 1 ? `${predictor} #${k + 1}` : predictor
        if (rows.length < 2)
          out.dropped.push(`${name}, "${own[0]!.title}": only ${rows.length} of ${own.length} rollouts reached it`)
        else {
          out.batch.push(rows)
          out.groups.push({ predictor: name, example, title: own[0]!.title })
        }
      }
    }
  }
  return out
}

function sample(call: RolloutCall, { reward, rewards }: Rollout): StepSample {
  return {
    messages: call.messages.map((message) => ({ ...message })),
    completion: { role: 'assistant', content: call.text },
    reward,
    ...(rewards === null ? {} : { rewards: Object.values(rewards) }),
    ...(call.completionId === null ? {} : { completion_id: call.completionId }),
  }
}
