// Replays of golden/loss: TRL's group-relative losses.
import {
  combineRewards,
  decoupledAdvantages,
  type EntropyState,
  entropyCoefficient,
  groupAdvantages,
  keptMask,
  type LossConfig,
  type LossRow,
  nextEntropyState,
  type PolicyLoss,
  policyLoss,
  rewardMetrics,
  samplerRatios,
} from '../../../src/grpo'
import { type Difference, firstDifference, firstOf, type Replay } from './case'
import {
  type AdaptiveEntropyCase,
  cut,
  type ExpectedMicroBatch,
  flat,
  type LogitsCase,
  type LossCase,
  lossConfig,
  lossRow,
  type Metrics,
  type Table,
  trlMetrics,
  unpad,
} from './trl'

const EXACT = 1e-10
/** TRL computes the clip metrics in float32. */
const FLOAT32 = 1e-6

export const lossReplays: Record<string, Replay> = {
  trl_loss: (testCase) => replayLoss(testCase as unknown as LossCase),
  logits: (testCase) => replayLogits(testCase as unknown as LogitsCase),
  trl_adaptive_entropy: (testCase) => replayAdaptiveEntropy(testCase as unknown as AdaptiveEntropyCase),
  arbor_loss: () => 'skip: records a defect of Arbor (its mask covers the prompt), not a target',
}

function replayLoss({ config: wire, inputs, expected }: LossCase): Difference | null {
  const config = lossConfig(wire)
  const rewards = combineRewards(inputs.rewards_per_func, inputs.reward_weights)
  const groupSize = wire.num_generations as number
  const groups = Array.from({ length: rewards.length / groupSize }, () => groupSize)
  const scaled =
    wire.multi_objective_aggregation === 'normalize_then_sum'
      ? decoupledAdvantages(inputs.rewards_per_func, groups, inputs.reward_weights)
      : groupAdvantages(rewards, groups, wire.scale_rewards as 'group' | 'batch' | 'none')
  const rows = inputs.lengths.map((length, i) => lossRow(inputs, i, { length, advantage: scaled.advantages[i] }))
  const logprobs = flat(inputs.new_logps, inputs.lengths)
  const result = policyLoss({ rows, logprobs, entropies: flat(inputs.entropies, inputs.lengths) }, config)
  const checks = [
    () => close('advantages', expected.advantages, scaled.advantages),
    () =>
      close(
        'loss_mask',
        unpad(expected.loss_mask, inputs.lengths),
        rows.map((row) => Array.from(keptMask(row, config))),
      ),
    () => close('num_items_in_batch', expected.num_items_in_batch, result.keptTokens),
    () => correctionDifference(expected.importance_sampling_ratio, rows, config),
    () => close('generation_metrics', expected.generation_metrics, generationMetrics(inputs, scaled.zeroStdShare, result)),
    () => close('micro_batches.length', expected.micro_batches.length, result.microBatches.length),
    () =>
      firstOf(expected.micro_batches.keys(), (k) => microBatchDifference(expected.micro_batches[k], k, { result, rows, config })),
    () => close('loss_sum', expected.loss_sum, result.loss),
  ]
  return firstOf(checks, (check) => check())
}

function microBatchDifference(
  expected: ExpectedMicroBatch,
  k: number,
  { result, rows, config }: { result: PolicyLoss; rows: readonly LossRow[]; config: LossConfig },
): Difference | null {
  const got = result.microBatches[k]
  const path = `micro_batches[${k}]`
  const lengths = rows.slice(got.start, got.end).map((row) => row.length)
  const offset = rows.slice(0, got.start).reduce((sum, row) => sum + row.length, 0)
  const part = (gradient: Float64Array) => cut(gradient.subarray(offset), lengths)
  const checks = [
    () => close(`${path}.rows`, expected.rows, rows.map((_, i) => i).slice(got.start, got.end)),
    () => close(`${path}.loss`, expected.loss, got.loss),
    () => close(`${path}.grad_new_logps`, unpad(expected.grad_new_logps, lengths), part(result.dLogprobs)),
    () => {
      const gradient = result.dEntropies ? part(result.dEntropies) : null
      return close(`${path}.grad_entropies`, expected.grad_entropies && unpad(expected.grad_entropies, lengths), gradient)
    },
    () => metricsDifference(`${path}.metrics`, expected.metrics, trlMetrics(got, config)),
  ]
  return firstOf(checks, (check) => check())
}

function correctionDifference(expected: Table | null, rows: readonly LossRow[], config: LossConfig): Difference | null {
  if (!expected || config.samplerCorrection === 'none') return null
  return firstOf(rows.keys(), (i) => {
    const row = rows[i]
    const ratios = samplerRatios({ ...row, mask: keptMask(row, config), oldLogprobs: row.oldLogprobs ?? [] }, config)
    return close(`importance_sampling_ratio[${i}]`, expected[i].slice(0, ratios.length), Array.from(ratios))
  })
}

function generationMetrics(inputs: LossCase['inputs'], zeroStdShare: number, result: PolicyLoss): Metrics {
  const rewards = rewardMetrics(inputs.rewards_per_func, inputs.reward_weights)
  const functions = rewards.functions.flatMap(({ mean, std }, k) => [
    [`rewards/r${k}/mean`, mean],
    [`rewards/r${k}/std`, std],
  ])
  const sampler = result.sampler && {
    'sampling/sampling_logp_difference/mean': result.sampler.gapMean,
    'sampling/sampling_logp_difference/max': result.sampler.gapMax,
    'sampling/importance_sampling_ratio/min': result.sampler.ratioMin,
    'sampling/importance_sampling_ratio/mean': result.sampler.ratioMean,
    'sampling/importance_sampling_ratio/max': result.sampler.ratioMax,
  }
  return {
    ...Object.fromEntries(functions),
    reward: rewards.reward,
    reward_std: rewards.rewardStd,
    frac_reward_zero_std: zeroStdShare,
    ...sampler,
  }
}

function replayLogits({ config: wire, inputs, expected }: LogitsCase): Difference | null {
  const config = lossConfig(wire)
  const temperature = wire.temperature as number
  const tokens = inputs.lengths.map((length, i) =>
    inputs.logits[i].slice(0, length).map((logits, t) => softmax(logits, { token: inputs.token_ids[i][t], temperature })),
  )
  const rows = inputs.lengths.map((length, i) => lossRow(inputs, i, { length, advantage: inputs.advantages[i] }))
  const logprobs = tokens.flat().map((token) => token.logprob)
  const entropies = tokens.flat().map((token) => token.entropy)
  const result = policyLoss({ rows, logprobs, entropies }, config)
  const gradient = tokens.flat().map((token, n) => token.backward(result.dLogprobs[n], result.dEntropies?.[n] ?? 0))
  return firstOf(
    [
      () => close('new_logps', flat(expected.new_logps, inputs.lengths), logprobs),
      () => close('entropies', flat(expected.entropies, inputs.lengths), entropies),
      () => close('loss', expected.loss, result.loss),
      () =>
        close(
          'grad_logits',
          expected.grad_logits.flatMap((row, i) => row.slice(0, inputs.lengths[i])),
          gradient,
        ),
      () => metricsDifference('metrics', expected.metrics, trlMetrics(result.microBatches[0], config)),
    ],
    (check) => check(),
  )
}

/** Step after step, the controller's state carried on. */
function replayAdaptiveEntropy({ config: wire, optimizer_steps }: AdaptiveEntropyCase): Difference | null {
  const control = {
    target: wire.entropy_target as number,
    delta: wire.entropy_coef_delta as number,
    min: wire.entropy_coef_min as number,
    max: wire.entropy_coef_max as number,
  }
  let state: EntropyState = { coef: wire.entropy_coef as number, lastEntropy: null }
  return firstOf(optimizer_steps.keys(), (k) => {
    const [step] = optimizer_steps[k]
    const { lengths } = step
    const rows = lengths.map((length, i) => ({ length, advantage: step.advantages[i] }))
    const config = { ...lossConfig(wire), entropyCoef: entropyCoefficient(state, control) }
    const before = state.coef
    const result = policyLoss({ rows, logprobs: flat(step.new_logps, lengths), entropies: flat(step.entropies, lengths) }, config)
    state = nextEntropyState(state, result.metrics.entropy, control)
    const path = `optimizer_steps[${k}]`
    const dEntropies = result.dEntropies ?? new Float64Array(result.dLogprobs.length)
    return firstOf(
      [
        () => close(`${path}.entropy_coef_before`, step.entropy_coef_before, before),
        () => close(`${path}.loss`, step.loss, result.loss),
        () => close(`${path}.grad_new_logps`, unpad(step.grad_new_logps, lengths), cut(result.dLogprobs, lengths)),
        () => close(`${path}.grad_entropies`, unpad(step.grad_entropies, lengths), cut(dEntropies, lengths)),
        () => close(`${path}.entropy_coef_after`, step.entropy_coef_after, state.coef),
        () => close(`${path}.last_world_entropy_after`, step.last_world_entropy_after, state.lastEntropy),
      ],
      (check) => check(),
    )
  })
}

/** Logprob and entropy of one position at logits / temperature, and the logits' gradient from theirs. */
function softmax(logits: readonly number[], { token, temperature }: { token: number; temperature: number }) {
  const scaled = logits.map((logit) => logit / temperature)
  const top = Math.max(...scaled)
  const logSum = top + Math.log(scaled.reduce((sum, z) => sum + Math.exp(z - top), 0))
  const logps = scaled.map((z) => z - logSum)
  const entropy = -logps.reduce((sum, logp) => sum + Math.exp(logp) * logp, 0)
  const backward = (dLogprob: number, dEntropy: number) =>
    logps.map((logp, v) => {
      const p = Math.exp(logp)
      return (dLogprob * (Number(v === token) - p) - dEntropy * p * (logp + entropy)) / temperature
    })
  return { logprob: logps[token], entropy, backward }
}

function metricsDifference(path: string, expected: Metrics, got: Metrics): Difference | null {
  const names = new Set([...Object.keys(expected), ...Object.keys(got)])
  return firstOf(names, (name) => {
    const tolerance = name.includes('clip') ? FLOAT32 : EXACT
    return firstDifference(expected[name], got[name], { tolerance, path: `${path}['${name}']` })
  })
}

function close(path: string, expected: unknown, got: unknown): Difference | null {
  return firstDifference(expected, got, { tolerance: EXACT, path })
}
