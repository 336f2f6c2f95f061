// What a step's record says: rewards, loss, lengths and the groups a person looks at.

import { type EntropyState, mean, nextEntropyState, standardDeviation } from '../grpo'
import type { GroupInfo, GroupRecord, Message, StepRecord, StepSample, TrainerConfig } from '../protocol'
import type { UpdateResult } from './policy-update'
import { entropyControl } from './trainer-config'
import type { TrainingRow } from './training-rows'

export interface StepFacts {
  readonly jobId: string
  readonly step: number
  readonly groups: readonly (readonly TrainingRow[])[]
  readonly samples: readonly (readonly StepSample[])[]
  readonly infos: readonly GroupInfo[] | null
  readonly metrics: Readonly<Record<string, number | null>>
  /** Unix seconds: when the step was posted, and when the previous one was done. */
  readonly arrived: number
  readonly lastTime: number
  readonly result: UpdateResult
}

export function stepRecord(facts: StepFacts): StepRecord {
  const { result } = facts
  const rows = facts.groups.flat()
  const rewards = rows.map((row) => row.reward)
  const lengths = rows.map((row) => row.completion.length)
  const { loss } = result
  return {
    job_id: facts.jobId,
    step: facts.step,
    policy_version: result.policyVersion,
    time: Date.now() / 1000,
    reward: mean(rewards),
    reward_std: mean(facts.groups.map((group) => standardDeviation(group.map((row) => row.reward)))),
    reward_min: Math.min(...rewards),
    reward_max: Math.max(...rewards),
    frac_reward_zero_std: result.zeroStdShare,
    validation_score: facts.metrics['validation_score'] ?? null,
    format_failures: facts.metrics['format_failures'] ?? null,
    loss: loss?.loss ?? 0,
    grad_norm: result.gradNorm,
    learning_rate: result.learningRate,
    entropy: loss?.metrics.entropy ?? 0,
    ...(result.entropyCoef !== null && { entropy_coef: result.entropyCoef }),
    kl: loss?.metrics.kl ?? null,
    clip_ratio_low: loss?.metrics.clipLow ?? 0,
    clip_ratio_high: loss?.metrics.clipHigh ?? 0,
    clip_ratio_region: loss?.metrics.clipRegion ?? 0,
    ...clipExtremes(loss),
    logprob_gap_max: result.gap?.max ?? null,
    logprob_gap_mean: result.gap?.mean ?? null,
    ...(result.constrained !== null && {
      rows_constrained: result.constrained.rows,
      logprob_gap_max_constrained: result.constrained.max,
    }),
    completion_length_mean: mean(lengths),
    completion_length_min: Math.min(...lengths),
    completion_length_max: Math.max(...lengths),
    truncated_share: mean(rows.map((row) => Number(row.truncated))),
    tokens: result.tokens,
    tokens_unshared: result.tokensUnshared,
    rows_trained: result.rowsTrained,
    rows_total: rows.length,
    seconds_train: result.seconds,
    seconds_between: Math.max(0, facts.arrived - facts.lastTime),
    notes: [...result.notes],
    groups: groupRecords(facts),
  }
}

/** Nothing where no token could be held: NaN has no place in JSON. */
function clipExtremes(loss: UpdateResult['loss']): Pick<StepRecord, 'clip_ratio_low_min' | 'clip_ratio_high_max'> {
  if (loss === null || Number.isNaN(loss.metrics.clipLowMin)) return {}
  return { clip_ratio_low_min: loss.metrics.clipLowMin, clip_ratio_high_max: loss.metrics.clipHighMax }
}

function groupRecords(facts: StepFacts): GroupRecord[] {
  const advantages = [...facts.result.advantages]
  return facts.groups.map((group, g) => ({
    ...groupInfo(facts, g),
    rewards: group.map((row) => row.reward),
    advantages: advantages.splice(0, group.length),
    lengths: group.map((row) => row.completion.length),
    completions: group.map((row) => row.text),
    sources: group.map((row) => row.source),
    truncated: group.map((row) => row.truncated),
  }))
}

/** Python clients do not describe their groups: the last message names the example. */
function groupInfo(facts: StepFacts, g: number): GroupInfo {
  const described = facts.infos?.[g]
  if (described) return described
  const asked = facts.samples[g]![0]!.messages.at(-1)!.content.trim()
  return { predictor: '', example: g, title: asked.length > 80 ? `${asked.slice(0, 79)}…` : asked }
}

/** Where the adaptive entropy bonus stands after these steps: it follows from their records, so a resumed job needs nothing else. */
export function entropyStateAfter(records: readonly StepRecord[], config: TrainerConfig): EntropyState {
  const control = entropyControl(config)
  const start: EntropyState = { coef: config.entropy_coef, lastEntropy: null }
  if (!control) return start
  return records
    .filter((record) => record.rows_trained > 0)
    .reduce((state, record) => nextEntropyState(state, record.entropy, control), start)
}

/** A line of rollouts.jsonl: a group, its messages and what came of them. */
export interface RolloutLine {
  readonly step: number
  readonly batch_id: number
  readonly predictor: string
  readonly example: string | number
  readonly title: string
  readonly messages: readonly Message[]
  readonly rollouts: readonly {
    readonly completion: string
    readonly completion_id: string | null
    readonly reward: number
    /** Of each reward function, where there are several. */
    readonly rewards?: readonly (number | null)[]
    readonly advantage: number
    readonly tokens: number
    readonly truncated: boolean
    readonly source: string
  }[]
}

export function rolloutLines(record: StepRecord, samples: StepFacts['samples'], batchId: number): RolloutLine[] {
  return record.groups.map((group, g) => ({
    step: record.step,
    batch_id: batchId,
    predictor: group.predictor,
    example: group.example,
    title: group.title,
    messages: samples[g]![0]!.messages,
    rollouts: group.rewards.map((reward, i) => ({
      completion: group.completions[i]!,
      completion_id: samples[g]![i]!.completion_id ?? null,
      reward,
      ...(samples[g]![i]!.rewards && { rewards: samples[g]![i]!.rewards }),
      advantage: group.advantages[i]!,
      tokens: group.lengths[i]!,
      truncated: group.truncated[i]!,
      source: group.sources[i]!,
    })),
  }))
}
