// What the newest numbers mean, in plain words: the questions that people ask first when they watch a GRPO run.

import type { StepRecord } from '../protocol'

/** `warning` asks for a change; `note` explains what is normal. */
export interface Remark {
  readonly level: 'warning' | 'note'
  readonly text: string
}

type Rule = (recent: readonly StepRecord[], all: readonly StepRecord[]) => Remark | null

const WINDOW = 3
/** Steps whose mean tells a fall from chance. */
const STRETCH = 5
const warning = (text: string): Remark => ({ level: 'warning', text })
const note = (text: string): Remark => ({ level: 'note', text })
const percent = (share: number) => `${Math.round(100 * share)} %`
const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
const signed = (value: number) => value.toFixed(2).replace('-', '−')

/** What to know about the run now, most important first; at least one remark once there is a record. */
export function diagnose(records: readonly StepRecord[]): Remark[] {
  if (records.length === 0) return []
  const recent = records.slice(-WINDOW)
  return RULES.flatMap((rule) => rule(recent, records) ?? [])
}

const RULES: readonly Rule[] = [
  function noGradient(recent) {
    return recent.every(({ grad_norm }) => grad_norm === 0)
      ? warning('The gradient is zero, so nothing is learned: no group of the last steps had rollouts that differ in reward.')
      : null
  },
  function mismatch(recent) {
    const gap = Math.max(...recent.map(({ logprob_gap_max }) => logprob_gap_max ?? 0))
    return gap > 0.05
      ? warning(
          `Sampler and trainer disagree by up to ${gap.toFixed(2)} nats a token: the rollouts were not made by the weights that are trained.`,
        )
      : null
  },
  function noSpread(recent, all) {
    const share = mean(recent.map(({ frac_reward_zero_std }) => frac_reward_zero_std))
    if (share < 0.5) return null
    const best = Math.max(...all.map(({ reward_max }) => reward_max))
    const worst = Math.min(...all.map(({ reward_min }) => reward_min))
    const flat = recent.flatMap(({ groups }) => groups).filter(({ rewards }) => rewards.every((reward) => reward === rewards[0]))
    // Where every answer there ever was had one reward, it is either perfection or nothing.
    const solved = flat.filter(({ rewards }) => rewards[0] === best && (worst < best || best > 0))
    const hint =
      solved.length > flat.length / 2
        ? 'most of these questions are solved: take harder ones'
        : 'raise the temperature or take more rollouts a group'
    return warning(`${percent(share)} of the rollouts were in groups without spread: they teach nothing. Best remedy: ${hint}.`)
  },
  function truncated(recent) {
    const share = mean(recent.map(({ truncated_share }) => truncated_share))
    return share >= 0.3
      ? warning(`${percent(share)} of the completions hit the length limit: allow more tokens, or reward short answers.`)
      : null
  },
  function entropyCollapse(recent, all) {
    const [first, now] = [all[0]!.entropy, recent.at(-1)!.entropy]
    return all.length >= 5 && now < 0.05 && now < first / 5
      ? warning(
          `Entropy fell from ${first.toFixed(2)} to ${now.toFixed(2)} nats: the rollouts of a group become alike. Lower the rate or stop here.`,
        )
      : null
  },
  function falling(_recent, all) {
    const fall = fallBack(all.map(({ reward }) => reward))
    return fall
      ? warning(
          `The reward fell back from ${signed(fall.from)} to ${signed(fall.to)} (means of ${STRETCH} steps): the rate may be too hot; the best checkpoint is the one to keep.`,
        )
      : null
  },
  function slowRate(_recent, all) {
    const rate = Math.max(...all.map(({ learning_rate }) => learning_rate))
    const { from, to } = thirds(all)
    return all.length >= 5 && rate < 5e-5 && to - from < 0.05
      ? warning(
          `The rate ${rate.toExponential(0)} is low for LoRA, which wants about ten times the rate of full training; 3e-4 is a usual start.`,
        )
      : null
  },
  function formatFailures(recent) {
    const { format_failures: failures, rows_total: rows } = recent.at(-1)!
    return failures !== null && rows > 0 && failures / rows >= 0.3
      ? note(
          `${failures} of ${rows} completions did not keep the format. That is what is learned first: expect the reward to jump when they do.`,
        )
      : null
  },
  function rising(_recent, all) {
    const { from, to } = thirds(all)
    return all.length >= 4 && to - from > 0.05 && fallBack(all.map(({ reward }) => reward)) === null
      ? note(`The reward rises: ${signed(from)} → ${signed(to)}, means of the first and the last third of ${all.length} steps.`)
      : null
  },
  function lossIsCosmetic(recent) {
    const { loss, grad_norm } = recent.at(-1)!
    return Math.abs(loss) < 0.02 && grad_norm > 0
      ? note(
          `A loss near 0 is expected: in each group the advantages sum to zero. Watch the reward; the gradient norm is ${grad_norm.toPrecision(2)}.`,
        )
      : null
  },
  function aboutTheReward(recent) {
    return note(
      `Mean reward ${signed(recent.at(-1)!.reward)}. It jumps from step to step, since each step asks other questions: look at the trend.`,
    )
  },
]

/**
 * From the best stretch of steps to the newest, where more than half of what was gained is lost and it is more than chance: every step
 * asks other questions, so one good step and a bad one are no fall.
 */
function fallBack(rewards: readonly number[]): { readonly from: number; readonly to: number } | null {
  const stretches = rewards.slice(STRETCH - 1).map((_, i) => mean(rewards.slice(i, i + STRETCH)))
  if (rewards.length < 2 * STRETCH) return null
  const [start, from, to] = [stretches[0]!, Math.max(...stretches), stretches.at(-1)!]
  const jumps = rewards.slice(1).map((reward, i) => (reward - rewards[i]!) ** 2)
  const chance = Math.sqrt(mean(jumps) / STRETCH) // the standard error of the difference of two stretches
  return from > start && from - to > Math.max(0.5 * (from - start), 3 * chance) ? { from, to } : null
}

/** Mean rewards of the first and the last third. */
function thirds(records: readonly StepRecord[]): { readonly from: number; readonly to: number } {
  const third = Math.max(1, Math.floor(records.length / 3))
  const rewards = records.map(({ reward }) => reward)
  return { from: mean(rewards.slice(0, third)), to: mean(rewards.slice(-third)) }
}
