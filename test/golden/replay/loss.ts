// Replays of golden/loss: TRL's group-relative losses, as padded tables, against grpo's rows of different lengths.
import {
  combineRewards,
  DEFAULT_LOSS_CONFIG,
  groupAdvantages,
  keptMask,
  type LossConfig,
  type LossMetrics,
  type LossRow,
  type MicroBatchLoss,
  type PolicyLoss,
  policyLoss,
  rewardMetrics,
  samplerRatios,
} from '../../../src/grpo'
import { type Difference, firstDifference, firstOf, type GoldenCase, type Replay } from './case'

type Table = readonly (readonly number[])[]
type Metrics = Readonly<Record<string, number | null>>

interface LossCase {
  readonly config: Readonly<Record<string, unknown>>
  readonly inputs: {
    readonly rewards_per_func: readonly (readonly (number | null)[])[]
    readonly reward_weights: readonly number[]
    readonly lengths: readonly number[]
    readonly truncated?: readonly boolean[]
    readonly tool_mask?: Table | null
    readonly new_logps: Table
    readonly old_logps: Table | null
    readonly ref_logps?: Table | null
    readonly sampling_logps?: readonly (readonly (number | null)[])[] | null
    readonly entropies: Table
  }
  readonly expected: {
    readonly advantages: readonly number[]
    readonly loss_mask: Table
    readonly num_items_in_batch: number
    readonly importance_sampling_ratio: Table | null
    readonly generation_metrics: Metrics
    readonly micro_batches: readonly ExpectedMicroBatch[]
    readonly loss_sum: number
  }
}

interface ExpectedMicroBatch {
  readonly rows: readonly number[]
  readonly loss: number
  readonly grad_new_logps: Table
  readonly grad_entropies: Table | null
  readonly metrics: Metrics
}

interface LogitsCase {
  readonly config: Readonly<Record<string, unknown>>
  readonly inputs: {
    readonly logits: readonly Table[]
    readonly token_ids: Table
    readonly lengths: readonly number[]
    readonly advantages: readonly number[]
    readonly old_logps: Table | null
    readonly ref_logps?: Table | null
  }
  readonly expected: {
    readonly new_logps: Table
    readonly entropies: Table
    readonly loss: number
    readonly grad_logits: readonly Table[]
    readonly metrics: Metrics
  }
}

const EXACT = 1e-10
/** TRL computes the clip metrics in float32. */
const FLOAT32 = 1e-6
const BUILT = ['grpo', 'bnpo', 'dr_grpo', 'dapo', 'cispo']

export const lossReplays: Record<string, Replay> = {
  trl_loss: (testCase) => notBuilt(testCase) ?? replayLoss(testCase as unknown as LossCase),
  logits: (testCase) => notBuilt(testCase) ?? replayLogits(testCase as unknown as LogitsCase),
  trl_adaptive_entropy: () => "skip: the adaptive entropy bonus isn't built yet",
  arbor_loss: () => 'skip: records a defect of Arbor (its mask covers the prompt), not a target',
}

function notBuilt(testCase: GoldenCase): `skip: ${string}` | null {
  const { loss_type, multi_objective_aggregation } = testCase.config as Record<string, string>
  if (!BUILT.includes(loss_type)) return `skip: loss type '${loss_type}' isn't built yet`
  if (multi_objective_aggregation === 'normalize_then_sum') return "skip: normalize_then_sum (GDPO) isn't built yet"
  return null
}

function replayLoss({ config: wire, inputs, expected }: LossCase): Difference | null {
  const config = lossConfig(wire)
  const rewards = combineRewards(inputs.rewards_per_func, inputs.reward_weights)
  const groupSize = wire.num_generations as number
  const groups = Array.from({ length: rewards.length / groupSize }, () => groupSize)
  const scaled = groupAdvantages(rewards, groups, wire.scale_rewards as 'group' | 'batch' | 'none')
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

function lossConfig(wire: Readonly<Record<string, unknown>>): LossConfig {
  const mode = wire.sampler_correction ? wire.vllm_importance_sampling_mode : 'none'
  return {
    ...DEFAULT_LOSS_CONFIG,
    lossType: wire.loss_type as LossConfig['lossType'],
    epsilon: wire.epsilon as number,
    epsilonHigh: wire.epsilon_high as number | null,
    delta: wire.delta as number | null,
    beta: wire.beta as number,
    useBiasCorrectionKl: wire.use_bias_correction_kl as boolean,
    importanceSamplingLevel: wire.importance_sampling_level as 'token' | 'sequence',
    maxCompletionLength: wire.max_completion_length as number,
    maskTruncatedCompletions: wire.mask_truncated_completions as boolean,
    topEntropyQuantile: wire.top_entropy_quantile as number,
    entropyCoef: wire.entropy_coef as number,
    offPolicyMaskThreshold: wire.off_policy_mask_threshold as number | null,
    samplerCorrection: mode as LossConfig['samplerCorrection'],
    samplerClipMin: wire.vllm_importance_sampling_clip_min as number | null,
    samplerClipMax: wire.vllm_importance_sampling_clip_max as number | null,
    gradientAccumulationSteps: wire.gradient_accumulation_steps as number,
    stepsPerGeneration: wire.steps_per_generation as number,
  }
}

function lossRow(inputs: Partial<LossCase['inputs']>, i: number, known: { length: number; advantage: number }): LossRow {
  const own = <T>(table: readonly (readonly T[])[] | null | undefined) => table?.[i].slice(0, known.length)
  return {
    ...known,
    truncated: inputs.truncated?.[i],
    mask: own(inputs.tool_mask),
    oldLogprobs: own(inputs.old_logps),
    refLogprobs: own(inputs.ref_logps),
    samplerLogprobs: own(inputs.sampling_logps),
  }
}

/** Our metrics of a micro-batch under TRL's names. */
function trlMetrics(part: MicroBatchLoss, config: LossConfig): Metrics {
  const { metrics } = part
  // TRL logs the policy loss before it divides by the accumulation steps, except where the divisor is the batch's token count.
  const byBatchTokens = config.lossType === 'dapo' || config.lossType === 'cispo'
  const policy_loss = part.policyLoss * (byBatchTokens ? 1 : config.gradientAccumulationSteps)
  return {
    ...(config.entropyCoef !== 0 && { policy_loss, entropy_coef: config.entropyCoef }),
    ...(metrics.kl !== null && { kl: metrics.kl }),
    entropy: metrics.entropy,
    ...(config.lossType === 'cispo' ? { cispo_clip_ratio: metrics.clipHigh } : clipMetrics(metrics)),
  }
}

function clipMetrics(metrics: LossMetrics): Metrics {
  return {
    'clip_ratio/low_mean': metrics.clipLow,
    'clip_ratio/high_mean': metrics.clipHigh,
    'clip_ratio/region_mean': metrics.clipRegion,
    'clip_ratio/low_min': metrics.clipLowMin,
    'clip_ratio/high_max': metrics.clipHighMax,
  }
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

function unpad(table: Table, lengths: readonly number[]): number[][] {
  return lengths.map((length, i) => table[i].slice(0, length))
}

function flat(table: Table, lengths: readonly number[]): number[] {
  return unpad(table, lengths).flat()
}

function cut(values: Float64Array, lengths: readonly number[]): number[][] {
  let offset = 0
  return lengths.map((length) => Array.from(values.subarray(offset, (offset += length))))
}
