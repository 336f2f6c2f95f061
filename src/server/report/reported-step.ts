// What reporters are told of a step: numbers under the names that TRL's dashboards have, and the completions as rows.

import { mean, standardDeviation } from '../../grpo'
import type { FineTuningStep, StepRecord } from '../../protocol'
import type { RolloutLine } from '../step-record'

/** A row of numbers: of a step, or of the validation after it. */
export interface ReportedStep {
  /** Updates made, as in transformers' global_step: a validation before training has 0. */
  readonly step: number
  readonly time: number // unix seconds
  /** As transformers' callbacks name them: train/… and eval/…. */
  readonly metrics: Readonly<Record<string, number>>
  readonly completions: readonly CompletionRow[]
}

/** A row of the table of completions; TRL's columns, and three more. */
export interface CompletionRow {
  readonly step: number
  readonly predictor: string
  readonly prompt: string
  readonly completion: string
  readonly reward: number
  readonly advantage: number
  readonly tokens: number
  readonly truncated: boolean
}

export const COMPLETION_COLUMNS = [
  'step',
  'predictor',
  'prompt',
  'completion',
  'reward',
  'advantage',
  'tokens',
  'truncated',
] as const satisfies readonly (keyof CompletionRow)[]

/** Steps of a GRPO run, in their order: some numbers add up over steps. */
export class GrpoSteps {
  private tokens: number

  /** @param before the records of the steps before, for the sums */
  constructor(
    private readonly lossType: string,
    before: readonly StepRecord[] = [],
  ) {
    this.tokens = before.reduce((sum, record) => sum + record.tokens_unshared, 0)
  }

  /** A record's validation was made before its update, so it stands before it, at the step before. */
  reported(record: StepRecord, lines: readonly RolloutLine[]): ReportedStep[] {
    this.tokens += record.tokens_unshared
    const metrics = {
      ...progress(record, this.tokens),
      ...rewards(record, lines),
      ...lengths(record),
      ...clipping(record, this.lossType),
    }
    const named = Object.entries(metrics).filter((entry): entry is [string, number] => entry[1] !== null)
    const train = Object.fromEntries(named.map(([name, value]) => [`train/${name}`, value]))
    const { step, time, validation_score: score } = record
    const update = { step, time, metrics: train, completions: lines.flatMap(completionRows) }
    return score === null ? [update] : [validation(step - 1, score, time - record.seconds_train), update]
  }
}

export function validation(step: number, score: number, time: number): ReportedStep {
  return { step, time, metrics: { 'eval/score': score }, completions: [] }
}

function progress(record: StepRecord, tokens: number) {
  return {
    loss: record.loss,
    grad_norm: record.grad_norm,
    learning_rate: record.learning_rate,
    entropy: record.entropy,
    entropy_coef: record.entropy_coef ?? null,
    kl: record.kl,
    num_tokens: tokens,
    step_time: record.seconds_between + record.seconds_train,
    'sampling/sampling_logp_difference/mean': record.logprob_gap_mean,
    'sampling/sampling_logp_difference/max': record.logprob_gap_max,
    policy_version: record.policy_version,
    format_failures: record.format_failures,
  }
}

/** One metric, or several reward functions by their places. */
function rewards(record: StepRecord, lines: readonly RolloutLine[]): Record<string, number> {
  const out = { reward: record.reward, reward_std: record.reward_std, frac_reward_zero_std: record.frac_reward_zero_std }
  const rollouts = lines.flatMap((line) => line.rollouts)
  const several = rollouts[0]?.rewards?.length ?? 0
  const functions: [string, (number | null | undefined)[]][] =
    several > 0
      ? Array.from({ length: several }, (_, i) => [`reward_${i}`, rollouts.map(({ rewards }) => rewards?.[i])])
      : [['metric', rollouts.map(({ reward }) => reward)]]
  for (const [name, given] of functions) {
    const values = given.filter((value): value is number => typeof value === 'number')
    if (values.length === 0) continue
    Object.assign(out, { [`rewards/${name}/mean`]: mean(values), [`rewards/${name}/std`]: standardDeviation(values) })
  }
  return out
}

/** TRL's zero where no completion came to its end. */
function lengths(record: StepRecord): Record<string, number> {
  const ended = record.groups.flatMap(({ lengths, truncated }) => lengths.filter((_, i) => !truncated[i]))
  const some = ended.length === 0 ? [0] : ended
  return {
    'completions/mean_length': record.completion_length_mean,
    'completions/min_length': record.completion_length_min,
    'completions/max_length': record.completion_length_max,
    'completions/clipped_ratio': record.truncated_share,
    'completions/mean_terminated_length': mean(some),
    'completions/min_terminated_length': Math.min(...some),
    'completions/max_terminated_length': Math.max(...some),
  }
}

/** The extremes are over completions; a step without an update has none. */
function clipping(record: StepRecord, lossType: string): Record<string, number | null> {
  if (lossType === 'cispo') return { cispo_clip_ratio: record.clip_ratio_high }
  return {
    'clip_ratio/low_mean': record.clip_ratio_low,
    'clip_ratio/low_min': record.clip_ratio_low_min ?? null,
    'clip_ratio/high_mean': record.clip_ratio_high,
    'clip_ratio/high_max': record.clip_ratio_high_max ?? null,
    'clip_ratio/region_mean': record.clip_ratio_region,
  }
}

function completionRows(line: RolloutLine): CompletionRow[] {
  const prompt = line.messages.map(({ role, content }) => `[${role}]\n${content}`).join('\n\n')
  return line.rollouts.map(({ completion, reward, advantage, tokens, truncated }) => ({
    step: line.step,
    predictor: line.predictor,
    prompt,
    completion,
    reward,
    advantage,
    tokens,
    truncated,
  }))
}

/** An update of a fine-tuning job, in the names of TRL's SFTTrainer. @param tokens trained so far */
export function reportedUpdate(update: FineTuningStep, tokens: number): ReportedStep {
  const { step, loss, grad_norm, learning_rate, epoch, seconds } = update
  const metrics = {
    'train/loss': loss,
    'train/grad_norm': grad_norm,
    'train/learning_rate': learning_rate,
    'train/epoch': epoch,
    'train/num_tokens': tokens,
    'train/step_time': seconds,
  }
  return { step, time: Date.now() / 1000, metrics, completions: [] }
}
