// An engine that can be one of a pool's: it computes parts of steps, and sums gradients with the others.

import type { Engine, StepConfig, TrainLoss, TrainSequence, TrainStats } from './engine'
import type { GroupPlace } from './ops/ops'

/** A part's gradients, one array for each trained tensor. */
export type Gradients = readonly Float32Array[]

/** The rest of a step, as the engine that computes a part of it sees it. */
export interface StepPart {
  /**
   * Called when the part's gradients are there, with them, or with null by an engine whose device sums with the others'. Resolves when every engine's are
   * there, to their sum, or to null: the devices may begin. Rejects when another engine failed: no update is made then.
   */
  sum(own: Gradients | null): Promise<Gradients | null>
}

export interface PoolMember extends Engine {
  /** Of a new group of devices. Rejects where devices can't sum among themselves. */
  groupId(): Promise<Uint8Array>
  /** Resolves when all are there. From then on this engine's device sums its gradients with the others'. */
  joinGroup(place: GroupPlace): Promise<void>
  /** Takes effect at once, also while a call waits for the others: that one rejects. */
  leaveGroup(): Promise<void>
  /** trainStep of a part, which may be empty: one update by the gradients of all parts together. `stats` are of the part, but for gradNorm. */
  trainPart(policy: string, sequences: readonly TrainSequence[], loss: TrainLoss, work: PartWork): Promise<TrainStats>
}

export interface PartWork {
  readonly config: StepConfig
  readonly part: StepPart
}
