// One training step by several engines: each computes its part, the loss sees all rows at once, and every engine makes the update by the sum of all
// gradients, so their weights stay the same to the last bit.

import { BackendError } from '../errors'
import { checkGradient } from './check-step'
import type { LossGradient, StepConfig, TrainLoss, TrainSequence, TrainStats } from './engine'
import { Meeting } from './meeting'
import type { Gradients, PoolMember } from './pool-member'
import { completionStarts } from './prefix-tree'

export interface PoolWork {
  readonly policy: string
  readonly sequences: readonly TrainSequence[]
  readonly loss: TrainLoss
  readonly config: StepConfig
}

/** How a step failed. */
export interface StepFailure {
  /** The first error; the others are its consequences. */
  readonly error: unknown
  /** Whose it was. */
  readonly member: number
  /** Some engines made the update and others didn't: their weights differ from now on. */
  readonly divided: boolean
  /** The devices had begun to sum; all were told to leave their group. */
  readonly groupLeft: boolean
}

type Gradient = Awaited<ReturnType<LossGradient>>
type Rows = Parameters<LossGradient>

export class PoolStep {
  private readonly rows: Rowwise
  private readonly losses: Meeting<Rows, Gradient>
  private readonly sums: Meeting<Gradients | null, Gradients | null>
  /** Members whose part isn't empty, in order: those that the loss waits for. */
  private readonly busy: readonly number[]
  private begun = false
  private failure: Pick<StepFailure, 'error' | 'member'> | null = null

  /** @param parts the places of the sequences of each member; some may be empty */
  constructor(
    private readonly members: readonly PoolMember[],
    private readonly parts: readonly (readonly number[])[],
    private readonly work: PoolWork,
  ) {
    this.rows = new Rowwise(work.sequences)
    this.busy = [...parts.keys()].filter((member) => parts[member]!.length > 0)
    this.losses = new Meeting(this.busy.length, (given) => this.lossOfAll(given))
    this.sums = new Meeting(members.length, (given) => {
      this.begun = true
      return sumOfAll(given)
    })
  }

  /** Returns when every engine is through with it, well or badly. */
  async run(): Promise<TrainStats | StepFailure> {
    const started = performance.now()
    const calls = this.members.map((_, member) => this.train(member))
    const settled = await Promise.allSettled(calls)
    const stats = settled.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []))
    if (this.failure) return { ...this.failure, divided: stats.length > 0 || inUpdate(this.failure.error), groupLeft: this.begun }
    if (new Set(stats.map(({ gradNorm }) => gradNorm)).size > 1) {
      const norms = stats.map(({ gradNorm }) => gradNorm).join(', ')
      const error = new BackendError(`The engines' gradients differ: their norms are ${norms}.`, { op: 'group_sum' })
      return { error, member: 0, divided: true, groupLeft: false }
    }
    return { ...this.merge(stats), seconds: (performance.now() - started) / 1000 }
  }

  private async train(member: number): Promise<TrainStats> {
    const { policy, sequences, config } = this.work
    const own = this.parts[member]!.map((place) => sequences[place]!)
    const part = { sum: (gradients: Gradients | null) => this.sums.arrive(member, gradients) }
    try {
      return await this.members[member]!.trainPart(policy, own, this.lossOf(member), { config, part })
    } catch (error) {
      this.fail(error, member)
      throw error
    }
  }

  private fail(error: unknown, member: number): void {
    this.failure ??= { error, member }
    this.losses.fail(error)
    this.sums.fail(error)
    // Those who wait for this one on their devices must not do so for ever.
    if (this.begun) for (const other of this.members) void other.leaveGroup().catch(() => {})
  }

  private lossOf(member: number): TrainLoss {
    const { loss } = this.work
    const places = this.parts[member]!
    if (typeof loss !== 'function') return { dLogprobs: this.rows.take(loss.dLogprobs, places) }
    return (logprobs, entropies) => this.losses.arrive(this.busy.indexOf(member), [logprobs, entropies])
  }

  /** The step's loss, over all rows in the order they were given. */
  private async lossOfAll(given: readonly Rows[]): Promise<Gradient[]> {
    const parts = this.busy.map((member) => this.parts[member]!)
    const all = ([0, 1] as const).map((which) =>
      this.rows.gather(
        given.map((rows) => rows[which]),
        parts,
      ),
    )
    const { dLogprobs, dEntropies } = await (this.work.loss as LossGradient)(all[0]!, all[1]!)
    checkGradient('dLogprobs', dLogprobs, all[0]!.length)
    if (dEntropies) checkGradient('dEntropies', dEntropies, all[0]!.length)
    return parts.map((places) => ({
      dLogprobs: this.rows.take(dLogprobs, places),
      ...(dEntropies && { dEntropies: this.rows.take(dEntropies, places) }),
    }))
  }

  private merge(stats: readonly TrainStats[]): Omit<TrainStats, 'seconds'> {
    const sum = (of: (one: TrainStats) => number) => stats.reduce((total, one) => total + of(one), 0)
    const { policyVersion, gradNorm } = stats[0]!
    const counts = {
      tokens: sum((one) => one.tokens),
      tokensUnshared: sum((one) => one.tokensUnshared),
      packs: sum((one) => one.packs),
    }
    if (typeof this.work.loss === 'function') return { policyVersion, gradNorm, ...counts }
    const [logprobs, entropies] = (['logprobs', 'entropies'] as const).map((name) =>
      this.rows.gather(
        stats.map((one) => one[name]!),
        this.parts,
      ),
    )
    return {
      policyVersion,
      gradNorm,
      ...counts,
      objective: sum((one) => one.objective!),
      logprobs: logprobs!,
      entropies: entropies!,
    }
  }
}

/** An engine that came as far has every engine's sum; whether the others, told to give up, had it as well is a matter of microseconds. */
function inUpdate(error: unknown): boolean {
  return error instanceof BackendError && error.op === 'adamw'
}

/** Values per completion token: all sequences' in the order given, and those of a part's sequences one after the other. */
class Rowwise {
  private readonly starts: readonly number[]

  constructor(sequences: readonly TrainSequence[]) {
    this.starts = completionStarts(sequences)
  }

  take(all: Float32Array, places: readonly number[]): Float32Array {
    const own = new Float32Array(places.reduce((sum, place) => sum + this.length(place), 0))
    let at = 0
    for (const place of places) {
      own.set(all.subarray(this.starts[place], this.starts[place + 1]), at)
      at += this.length(place)
    }
    return own
  }

  gather(parts: readonly Float32Array[], places: readonly (readonly number[])[]): Float32Array {
    const all = new Float32Array(this.starts.at(-1)!)
    for (const [part, values] of parts.entries()) {
      let at = 0
      for (const place of places[part]!) {
        all.set(values.subarray(at, at + this.length(place)), this.starts[place])
        at += this.length(place)
      }
    }
    return all
  }

  private length(place: number): number {
    return this.starts[place + 1]! - this.starts[place]!
  }
}

/** Null where the devices do it. In the members' order, so that the sum is the same in every run. */
function sumOfAll(given: readonly (Gradients | null)[]): (Gradients | null)[] {
  const own = given.filter((one): one is Gradients => one !== null)
  if (own.length === 0) return given.map(() => null)
  if (own.length < given.length)
    throw new BackendError('Some devices sum gradients among themselves and others do not; no update was made. Try again.', {
      op: 'group_sum',
    })
  const [first, ...others] = own
  const total = first!.map((values) => values.slice())
  for (const gradients of others)
    for (const [i, values] of gradients.entries()) {
      const sum = total[i]!
      for (let j = 0; j < sum.length; j++) sum[j]! += values[j]!
    }
  return given.map(() => total)
}
