// Replays of golden/loss: TRL's group-relative losses.
import type { Replay } from './case'

export const lossReplays: Record<string, Replay> = {
  arbor_loss: () => 'skip: records a defect of Arbor (its mask covers the prompt), not a target',
}
