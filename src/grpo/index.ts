// The mathematics of group-relative policy optimisation: rewards to advantages, logprobs to a loss and its gradient. Imports nothing.
export * from './advantage'
export * from './entropy-controller'
export * from './loss'
export { type LossMetrics, type RewardMetrics, rewardMetrics, type SamplerMetrics, samplerMetrics } from './metrics'
export { type MaskedRow, samplerRatios } from './multipliers'
export * from './types'
