// Step records for tests: two questions, four rollouts each; the second group has no spread in every even step.

import type { GroupRecord, StepRecord } from '../protocol'

function group(title: string, rewards: readonly number[]): GroupRecord {
  const mean = rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length
  return {
    predictor: 'answer',
    example: title,
    title,
    rewards: [...rewards],
    advantages: rewards.map((reward) => reward - mean),
    lengths: rewards.map((_, i) => 10 + i),
    completions: rewards.map((reward) => `<answer>${reward}</answer><script>alert(1)</script>`),
    sources: rewards.map(() => 'id' as const),
    truncated: rewards.map((_, i) => i === 3),
  }
}

/** Record of step `step` (from 1), with `changes` laid over it. */
export function stepRecord(step: number, changes: Partial<StepRecord> = {}): StepRecord {
  const groups = [
    group('What is 2 + 3?', [1, 0, 0, -1]),
    group('Capital of <b>France</b>?', step % 2 ? [1, 1, 1, 0] : [1, 1, 1, 1]),
  ]
  return {
    job_id: 'job',
    step,
    policy_version: step,
    time: 0,
    reward: step / 10,
    reward_std: 0.2,
    reward_min: -1,
    reward_max: 1,
    frac_reward_zero_std: step % 2 ? 0 : 0.5,
    validation_score: null,
    format_failures: 1,
    loss: 0,
    grad_norm: 0.09,
    learning_rate: 5e-4,
    entropy: 1,
    kl: null,
    clip_ratio_low: 0,
    clip_ratio_high: 0.01,
    clip_ratio_region: 0.01,
    logprob_gap_max: 1e-5,
    logprob_gap_mean: 1e-6,
    completion_length_mean: 11.5,
    completion_length_min: 10,
    completion_length_max: 13,
    truncated_share: 0.25,
    tokens: 100,
    tokens_unshared: 400,
    rows_trained: 8,
    rows_total: 8,
    seconds_train: 11,
    seconds_between: 10,
    notes: [],
    groups,
    ...changes,
  }
}

/** Records of steps 1 to `count`. */
export function stepRecords(count: number): StepRecord[] {
  return Array.from({ length: count }, (_, i) => stepRecord(i + 1))
}
