// The adaptive entropy bonus (TRL's use_adaptive_entropy, after Skywork-OR1, https://arxiv.org/abs/2505.22312): its weight rises while the
// policy is surer than wished and falls while it isn't.

export interface EntropyControl {
  /** Nats a token. The bonus applies only where the last step's mean entropy was at most this. */
  readonly target: number
  /** The weight moves by this much after each step, and stays within [min, max]. */
  readonly delta: number
  readonly min: number
  readonly max: number
}

/** What a checkpoint keeps, so that a resumed run goes on as if it had not stopped. */
export interface EntropyState {
  readonly coef: number
  /** Mean entropy of the last step's tokens; null before the first. */
  readonly lastEntropy: number | null
}

/** The weight of the entropy bonus in the step to come; the first step has none. */
export function entropyCoefficient({ coef, lastEntropy }: EntropyState, { target }: EntropyControl): number {
  return lastEntropy !== null && lastEntropy <= target ? coef : 0
}

/** After a step whose tokens' mean entropy was `entropy` nats. */
export function nextEntropyState({ coef }: EntropyState, entropy: number, control: EntropyControl): EntropyState {
  const moved = entropy <= control.target ? coef + control.delta : coef - control.delta
  return { coef: Math.min(Math.max(moved, control.min), control.max), lastEntropy: entropy }
}
